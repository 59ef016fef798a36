//! Reads JSON bodies: one pass that also finds the keys that stand twice in an object, which strict field validation refuses.

use crate::ApiError;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// How many levels of lists and objects a body may have: serde_json's own bound, so that no recursion over a value can exhaust a stack.
pub const DEPTH_MAX: usize = 127;

/// Parses a document. The second value holds the paths of keys that stand twice (`spec.replicas`, `spec.containers[0].name`), in the order found; the last value of such a key counts.
///
/// # Errors
/// 400 where it is no JSON, has something after its end, or is nested deeper than [`DEPTH_MAX`].
pub fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    let mut repeated = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let at = At::Root;
    let value = Seed { at: &at, repeated: &mut repeated }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|e| ApiError::bad_request(describe(&e)))?;
    Ok((value, repeated))
}

fn describe(e: &serde_json::Error) -> String {
    if e.to_string().starts_with("recursion limit") {
        return format!("the document is nested deeper than {DEPTH_MAX} levels");
    }
    format!("the document is no valid JSON: {e}")
}

/// The message of upstream's strict decoding: `strict decoding error: unknown field "spec.foo", duplicate field "spec.x"`; `None` where there is nothing to say.
pub fn strict_decoding_error(duplicates: &[String], unknown: &[String]) -> Option<String> {
    let parts: Vec<String> = strict_warnings(duplicates, unknown);
    (!parts.is_empty()).then(|| format!("strict decoding error: {}", parts.join(", ")))
}

/// One text for each repeated and each unknown field, as upstream puts them into `Warning` headers.
pub fn strict_warnings(duplicates: &[String], unknown: &[String]) -> Vec<String> {
    let say = |what: &str, paths: &[String]| -> Vec<String> {
        paths.iter().map(|p| format!("{what} field {p:?}")).collect()
    };
    let mut parts = say("duplicate", duplicates);
    parts.extend(say("unknown", unknown));
    parts
}

/// Where the reader stands.
enum At<'a> {
    Root,
    Field(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Root => Ok(()),
            At::Field(At::Root, name) => f.write_str(name),
            At::Field(parent, name) => write!(f, "{parent}.{name}"),
            At::Index(parent, i) => write!(f, "{parent}[{i}]"),
        }
    }
}

/// Reads one value, noting repeated keys.
struct Seed<'a, 'r> {
    at: &'a At<'a>,
    repeated: &'r mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let at = At::Index(self.at, list.len());
            match seq.next_element_seed(Seed { at: &at, repeated: self.repeated })? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let at = At::Field(self.at, &key);
            if map.contains_key(&key) {
                let path = at.to_string();
                if !self.repeated.contains(&path) {
                    // A body of nothing but repeated keys must not grow a list of messages without end.
                    if self.repeated.len() >= REPEATED_MAX {
                        return Err(A::Error::custom("too many duplicate fields"));
                    }
                    self.repeated.push(path);
                }
            }
            let value = access.next_value_seed(Seed { at: &at, repeated: self.repeated })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

const REPEATED_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_keys_are_found_where_they_stand() {
        let check = |text: &str, want: &[&str]| {
            let (value, repeated) = parse(text.as_bytes()).unwrap();
            assert_eq!(repeated, want, "{text}");
            assert_eq!(value, serde_json::from_str::<Value>(text).unwrap(), "{text}");
        };
        check(r#"{"a":1,"b":[1,2.5,-3,null,true,"x"],"c":{}}"#, &[]);
        check(r#"{"spec":{"x":1,"x":2,"x":3}}"#, &["spec.x"]);
        check(r#"{"l":[{"a":1},{"a":1,"a":2}],"l":[]}"#, &["l[1].a", "l"]);
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let check = |text: &str, part: &str| {
            let e = parse(text.as_bytes()).unwrap_err();
            assert_eq!(e.code(), 400);
            assert!(e.message().contains(part), "{text:.30} gives {e}");
        };
        check("", "EOF");
        check("{", "EOF");
        check(r#"{"a":1} x"#, "trailing");
        check(r#"{"a":1e999}"#, "out of range");
        check(&"[".repeat(100_000), "nested deeper");
        check("\u{feff}{}", "expected value");
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
        assert!(parse(format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX)).as_bytes()).is_ok());
    }

    #[test]
    fn strict_messages_have_upstreams_shape() {
        let (d, u) = (["spec.x".to_owned()], ["spec.foo".to_owned()]);
        assert_eq!(
            strict_decoding_error(&d, &u).as_deref(),
            Some("strict decoding error: duplicate field \"spec.x\", unknown field \"spec.foo\"")
        );
        assert_eq!(strict_decoding_error(&[], &[]), None);
    }
}
