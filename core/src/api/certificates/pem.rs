//! PEM texts in objects: which blocks they hold. What is inside a block is only looked at for being DER.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The types of the blocks of a text that stands in an object as base64.
///
/// # Errors
/// What is wrong with it.
pub(super) fn blocks(encoded: &str) -> Result<Vec<String>, String> {
    let bytes = STANDARD.decode(encoded).map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    let mut kinds = Vec::new();
    let mut rest = text.as_ref();
    while let Some(start) = rest.find("-----BEGIN ") {
        let after = &rest[start + "-----BEGIN ".len()..];
        let Some((kind, body)) = after.split_once("-----") else { break };
        let end = format!("-----END {kind}-----");
        let Some((inner, after)) = body.split_once(end.as_str()) else { break };
        if inner.contains(':') {
            return Err("no PEM block headers are permitted".to_owned());
        }
        let inner: String = inner.split_whitespace().collect();
        let der = STANDARD.decode(&inner).map_err(|e| e.to_string())?;
        if der.first() != Some(&0x30) {
            return Err("asn1: structure error: tags don't match".to_owned());
        }
        kinds.push(kind.to_owned());
        rest = after;
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found() {
        let check = |text: &str, wanted: Result<Vec<&str>, &str>| {
            let found = blocks(&STANDARD.encode(text));
            let wanted =
                wanted.map(|kinds| kinds.into_iter().map(str::to_owned).collect()).map_err(str::to_owned);
            assert_eq!(found, wanted, "{text}");
        };
        let block = |kind: &str| format!("-----BEGIN {kind}-----\nMAA=\n-----END {kind}-----\n");
        check("", Ok(vec![]));
        check(&block("CERTIFICATE"), Ok(vec!["CERTIFICATE"]));
        check(&format!("words\n{}{}", block("A"), block("B")), Ok(vec!["A", "B"]));
        check("-----BEGIN A-----\nx: y\n\nMAA=\n-----END A-----", Err("no PEM block headers are permitted"));
        check("-----BEGIN A-----\nAAA=\n-----END A-----", Err("asn1: structure error: tags don't match"));
        check("-----BEGIN A-----\nMAA=\n", Ok(vec![]));
        assert!(blocks("%").is_err());
    }
}
