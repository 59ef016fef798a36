//! What a plugin answers: the result of ADD, and errors.

use crate::{Error, Reason};
use serde::Deserialize;
use serde_json::Value;
use std::net::IpAddr;

/// An address that a plugin gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpConfig {
    /// The address.
    pub address: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
    /// The gateway, where there is one.
    pub gateway: Option<IpAddr>,
}

/// The result of ADD, with the parts that a runtime reads; the whole stays as it came, for CHECK and DEL.
#[derive(Clone, Debug, PartialEq)]
pub struct CniResult {
    /// The addresses, in the plugin's order.
    pub ips: Vec<IpConfig>,
    /// The whole document.
    pub raw: Value,
}

impl CniResult {
    /// Reads a result.
    ///
    /// # Errors
    /// `Failed` where it is none.
    pub fn parse(raw: Value) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Ip {
            address: String,
            gateway: Option<IpAddr>,
        }
        #[derive(Deserialize)]
        struct Document {
            #[serde(default)]
            ips: Vec<Ip>,
        }
        let wrong = |why: String| Error::new(Reason::Failed, format!("the plugin's result is wrong: {why}"));
        let document = Document::deserialize(&raw).map_err(|e| wrong(e.to_string()))?;
        let ips = document
            .ips
            .into_iter()
            .map(|ip| {
                let parts = ip.address.split_once('/');
                let parsed = parts.and_then(|(a, p)| Some((a.parse().ok()?, p.parse().ok()?)));
                let (address, prefix) = parsed.ok_or_else(|| wrong(format!("address {:?}", ip.address)))?;
                Ok(IpConfig { address, prefix, gateway: ip.gateway })
            })
            .collect::<Result<_, Error>>()?;
        Ok(CniResult { ips, raw })
    }
}

/// The error document of a plugin (code, message, details) as an error of this crate.
pub(crate) fn plugin_error(plugin: &str, stdout: &[u8], stderr: &[u8], status: &str) -> Error {
    #[derive(Deserialize)]
    struct Document {
        code: u32,
        #[serde(default)]
        msg: String,
        #[serde(default)]
        details: String,
    }
    let Ok(document) = serde_json::from_slice::<Document>(stdout) else {
        let text = String::from_utf8_lossy(if stderr.is_empty() { stdout } else { stderr });
        return Error::new(Reason::Failed, format!("plugin {plugin} failed ({status}): {}", text.trim()));
    };
    // Codes of the specification: 1 to 7 are about the request, 11 asks for another try, 50 and 51 are of STATUS.
    let reason = match document.code {
        1 | 2 | 4 | 6 | 7 => Reason::Invalid,
        3 => Reason::NotFound,
        11 | 50 | 51 => Reason::TryAgain,
        _ => Reason::Failed,
    };
    let details =
        if document.details.is_empty() { String::new() } else { format!(" ({})", document.details) };
    Error::new(reason, format!("plugin {plugin}: {}{details}", document.msg))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_and_errors_are_read() {
        let result =
            CniResult::parse(json!({"ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1"}]})).unwrap();
        assert_eq!(result.ips[0].address, "10.1.0.5".parse::<IpAddr>().unwrap());
        assert_eq!(result.ips[0].prefix, 16);
        assert!(CniResult::parse(json!({"ips": [{"address": "10.1.0.5"}]})).is_err());
        assert!(CniResult::parse(json!({"ips": 1})).is_err());
        let e = plugin_error("bridge", br#"{"code":11,"msg":"later","details":"busy"}"#, b"", "exit 1");
        assert_eq!((e.reason(), e.to_string()), (Reason::TryAgain, "plugin bridge: later (busy)".to_owned()));
        let e = plugin_error("bridge", b"", b"boom\n", "exit 2");
        assert_eq!(e.to_string(), "plugin bridge failed (exit 2): boom");
    }
}
