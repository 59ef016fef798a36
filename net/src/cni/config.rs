//! Network configurations: `.conflist` files, and single-plugin `.conf`/`.json` files as lists of one.

use crate::{Error, Reason};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The specification versions that this executor speaks.
pub(crate) const VERSIONS: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A list of plugins that together make one network.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// The network's name.
    pub name: String,
    /// The version of the specification that it is written in.
    pub cni_version: String,
    /// Whether CHECK is left out.
    pub disable_check: bool,
    /// The plugins' own configurations, each with a `type`.
    pub plugins: Vec<Map<String, Value>>,
}

impl NetworkConfig {
    /// Reads a configuration out of its JSON: a list, or a single plugin.
    ///
    /// # Errors
    /// `Invalid` with what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let invalid = |why: String| Error::new(Reason::Invalid, format!("network configuration: {why}"));
        let value: Value = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
        let Value::Object(mut map) = value else { return Err(invalid("it is no JSON object".to_owned())) };
        let text = |map: &Map<String, Value>, key: &str| {
            map.get(key).and_then(Value::as_str).map(str::to_owned).filter(|t| !t.is_empty())
        };
        let name = text(&map, "name").ok_or_else(|| invalid("it has no `name`".to_owned()))?;
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
            return Err(invalid(format!(
                "the name {name:?} has characters other than letters, digits, `_.-`"
            )));
        }
        let cni_version = text(&map, "cniVersion").unwrap_or_else(|| "0.3.0".to_owned());
        if !VERSIONS.contains(&cni_version.as_str()) {
            let known = VERSIONS.join(", ");
            return Err(invalid(format!("version {cni_version} is not spoken here (known: {known})")));
        }
        let disable_check = map.get("disableCheck").and_then(Value::as_bool).unwrap_or(false);
        let plugins = match map.remove("plugins") {
            None => vec![map],
            Some(Value::Array(list)) => list
                .into_iter()
                .map(|p| match p {
                    Value::Object(plugin) => Ok(plugin),
                    _ => Err(invalid("an item of `plugins` is no object".to_owned())),
                })
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(invalid("`plugins` is no list".to_owned())),
        };
        if plugins.is_empty() {
            return Err(invalid("`plugins` is empty".to_owned()));
        }
        if let Some(at) = plugins.iter().position(|p| text(p, "type").is_none()) {
            return Err(invalid(format!("plugin {at} has no `type`")));
        }
        Ok(NetworkConfig { name, cni_version, disable_check, plugins })
    }
}

/// The first valid configuration of a folder in the order of file names, as container runtimes choose it.
///
/// # Errors
/// `TryAgain` where there is none yet, `Invalid` where those that are there are all wrong.
pub fn load_default(folder: &Path) -> Result<NetworkConfig, Error> {
    let none = || Error::new(Reason::TryAgain, format!("no network configuration in {}", folder.display()));
    let entries = std::fs::read_dir(folder).map_err(|_| none())?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| p.extension().is_some_and(|e| e == "conf" || e == "conflist" || e == "json"))
        .collect();
    files.sort();
    let mut first_error = None;
    for file in files {
        let read = std::fs::read(&file).map_err(|e| Error::new(Reason::Failed, e.to_string()));
        match read.and_then(|bytes| NetworkConfig::parse(&bytes)) {
            Ok(config) => return Ok(config),
            Err(e) => first_error = first_error.or(Some(format!("{}: {e}", file.display()))),
        }
    }
    Err(first_error.map_or_else(none, |text| Error::new(Reason::Invalid, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: Result<(&str, usize), &str>) {
        match (NetworkConfig::parse(json.as_bytes()), expected) {
            (Ok(config), Ok((name, plugins))) => {
                assert_eq!((config.name.as_str(), config.plugins.len()), (name, plugins), "{json}");
            }
            (Err(e), Err(part)) => assert!(e.to_string().contains(part), "{json}: {e}"),
            (got, _) => panic!("{json}: {got:?}"),
        }
    }

    #[test]
    fn lists_and_single_plugins_are_read() {
        check(
            r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"},{"type":"portmap"}]}"#,
            Ok(("n", 2)),
        );
        check(r#"{"cniVersion":"0.4.0","name":"n","type":"bridge"}"#, Ok(("n", 1)));
        check(r#"{"name":"n","plugins":[]}"#, Err("empty"));
        check(r#"{"name":"n","plugins":[{"x":1}]}"#, Err("plugin 0 has no `type`"));
        check(r#"{"cniVersion":"9.0.0","name":"n","type":"x"}"#, Err("version 9.0.0"));
        check(r#"{"type":"x"}"#, Err("no `name`"));
        check(r#"{"name":"../x","type":"x"}"#, Err("characters"));
        check("[]", Err("no JSON object"));
        check("{", Err("EOF"));
    }

    #[test]
    fn the_first_file_that_is_right_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load_default(folder.path()).unwrap_err().reason(), Reason::TryAgain);
        std::fs::write(folder.path().join("05-broken.conf"), "{").unwrap();
        assert_eq!(load_default(folder.path()).unwrap_err().reason(), Reason::Invalid);
        std::fs::write(folder.path().join("10-b.conflist"), r#"{"name":"b","plugins":[{"type":"x"}]}"#)
            .unwrap();
        std::fs::write(folder.path().join("20-c.conf"), r#"{"name":"c","type":"x"}"#).unwrap();
        std::fs::write(folder.path().join("00-a.txt"), r#"{"name":"a","type":"x"}"#).unwrap();
        assert_eq!(load_default(folder.path()).unwrap().name, "b");
    }
}
