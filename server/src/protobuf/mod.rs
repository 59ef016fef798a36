//! Request bodies in Kubernetes' protobuf encoding, which kubectl and client-go send for the built-in kinds, read into JSON.
//!
//! The messages are described by a table of facts that is parsed when the first such body comes. Answers are always JSON: every
//! client that sends protobuf accepts it.

mod decode;
mod table;
mod wire;

use kubewright_core::{ApiError, json};
use serde_json::{Value, json as object};

/// `application/vnd.kubernetes.protobuf`.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

/// Reads an object out of its envelope.
///
/// # Errors
/// 400 where the bytes are no such object, or are of a kind that has no protobuf encoding.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, ApiError> {
    let wrong =
        |why: &str| ApiError::bad_request(format!("the body is no Kubernetes protobuf object: {why}"));
    let body = bytes.strip_prefix(MAGIC).ok_or_else(|| wrong("it does not begin with its magic bytes"))?;
    let (mut api_version, mut kind, mut raw, mut content_type) = (String::new(), String::new(), &b""[..], "");
    let mut fields = wire::Fields::new(body);
    while let Some((number, value)) = fields.next().map_err(|e| wrong(&e))? {
        match (number, value) {
            (1, wire::Wire::Bytes(meta)) => {
                let mut meta = wire::Fields::new(meta);
                while let Some((number, value)) = meta.next().map_err(|e| wrong(&e))? {
                    let text = value.text().map_err(|e| wrong(&e))?.to_owned();
                    match number {
                        1 => api_version = text,
                        2 => kind = text,
                        _ => {}
                    }
                }
            }
            (2, wire::Wire::Bytes(bytes)) => raw = bytes,
            (3, wire::Wire::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(wrong("its content is compressed"));
            }
            (4, value) => content_type = value.text().map_err(|e| wrong(&e))?,
            _ => {}
        }
    }
    if content_type == "application/json" {
        return json::parse(raw).map(|(value, _)| value);
    }
    let message = table::of_kind(&api_version, &kind)
        .ok_or_else(|| wrong(&format!("there is no encoding of {kind:?} in version {api_version:?}")))?;
    let mut value = decode::message(message, raw).map_err(|e| wrong(&e))?;
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".to_owned(), object!(api_version));
        map.insert("kind".to_owned(), object!(kind));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ConfigMap as kubectl 1.32 sends it.
    const CONFIG_MAP: &[u8] = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x1b\x0a\x11\x0a\x01c\x12\x00\x1a\x00\"\0*\x002\x008\0B\0\x12\x06\x0a\x01a\x12\x01b\x1a\0\"\0";

    fn wrap(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let field = |number: u8, bytes: &[u8]| {
            let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
            out.extend_from_slice(bytes);
            out
        };
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn bodies_become_json() {
        let check = |bytes: &[u8], expected: Value| assert_eq!(decode(bytes).unwrap(), expected);
        check(
            CONFIG_MAP,
            object!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}),
        );
        // replicas 0, a selector, a strategy with a percentage; what is inlined stands where JSON has it.
        let deployment = b"\x12\x13\x08\0\x22\x0f\x0a\0\x12\x0b\x12\x09\x08\x01\x10\0\x1a\x0325%";
        check(
            &wrap("apps/v1", "Deployment", deployment),
            object!({"apiVersion": "apps/v1", "kind": "Deployment",
                "spec": {"replicas": 0, "strategy": {"rollingUpdate": {"maxSurge": "25%"}}}}),
        );
        let volume = b"\x12\x09\x0a\x07\x0a\x01v\x12\x02\x12\x00";
        check(
            &wrap("v1", "Pod", volume),
            object!({"apiVersion": "v1", "kind": "Pod", "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        );
        check(
            &wrap("policy/v1", "DeleteOptions", b"\x08\x00"),
            object!({"apiVersion": "policy/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}),
        );
    }

    #[test]
    fn schemas_become_json() {
        let field = |number: u8, bytes: &[u8]| {
            let mut out = Vec::new();
            // Field numbers above 15 take two bytes.
            let tag = u16::from(number) << 3 | 2;
            match u8::try_from(tag).ok().filter(|t| *t < 128) {
                Some(tag) => out.push(tag),
                None => out.extend([u8::try_from(tag & 127).unwrap() | 128, u8::try_from(tag >> 7).unwrap()]),
            }
            out.push(u8::try_from(bytes.len()).unwrap());
            out.extend_from_slice(bytes);
            out
        };
        let check = |schema: &[u8], wanted: Value| {
            let spec =
                field(7, &[field(1, b"v1"), vec![0x10, 1, 0x18, 1], field(4, &field(1, schema))].concat());
            let read = decode(&wrap("apiextensions.k8s.io/v1", "CustomResourceDefinition", &field(2, &spec)))
                .unwrap();
            let version = &read["spec"]["versions"][0];
            assert_eq!(
                (&version["name"], &version["served"], &version["storage"]),
                (&object!("v1"), &object!(true), &object!(true))
            );
            assert_eq!(version["schema"]["openAPIV3Schema"], wanted);
        };
        let text = field(5, b"string");
        check(&text, object!({"type": "string"}));
        check(&field(8, &field(1, b"{\"a\":1}")), object!({"default": {"a": 1}}));
        check(&field(20, &field(1, b"\"x\"")), object!({"enum": ["x"]}));
        check(&field(24, &field(1, &text)), object!({"items": {"type": "string"}}));
        check(&field(24, &field(2, &text)), object!({"items": [{"type": "string"}]}));
        check(&field(30, &[8, 1]), object!({"additionalProperties": true}));
        check(
            &field(30, &[[8, 1].as_slice(), &field(2, &text)].concat()),
            object!({"additionalProperties": {"type": "string"}}),
        );
        check(
            &field(32, &[field(1, b"k"), field(2, &field(2, b"other"))].concat()),
            object!({"dependencies": {"k": ["other"]}}),
        );
        check(
            &field(29, &[field(1, b"p"), field(2, &text)].concat()),
            object!({"properties": {"p": {"type": "string"}}}),
        );
        check(&[0xb0, 2, 1], object!({"x-kubernetes-preserve-unknown-fields": true}));
        check(&[0xa8, 2, 0, 0xb8, 2, 0], object!({}));
    }

    #[test]
    fn bad_bodies_are_refused() {
        let whole = CONFIG_MAP;
        for end in 0..whole.len() {
            if let Err(e) = decode(&whole[..end]) {
                assert_eq!(e.code(), 400);
            }
        }
        let check = |bytes: &[u8]| assert_eq!(decode(bytes).unwrap_err().code(), 400);
        check(b"");
        check(b"{}");
        check(&wrap("example.dev/v1", "Toy", b""));
        check(&wrap("v1", "ConfigMap", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"));
        check(&wrap("v1", "ConfigMap", b"\x0a\x03\x0a\x01\xff"));
    }

    #[test]
    fn every_message_of_the_table_is_known() {
        assert!(table::check() > 400);
    }
}
