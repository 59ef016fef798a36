//! The reader of JSON bodies against `serde_json` itself, on documents and on what is left of them after damage.

use super::check;
use kubewright_core::json;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value};

/// Any document of a few levels.
pub(crate) fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-4i64..4).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c\"\\\\é\u{0}]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map("[a-c/~]{1,2}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

#[test]
fn the_reader_agrees_with_the_library() {
    let damage = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    check(1_000, (document(), damage), |(document, damage)| {
        let mut bytes = document.to_string().into_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let ours = json::parse(&bytes);
        let theirs = serde_json::from_slice::<Value>(&bytes);
        match (&ours, &theirs) {
            (Ok((ours, _)), Ok(theirs)) => prop_assert_eq!(ours, theirs),
            (Err(e), Err(_)) => prop_assert_eq!(e.code(), 400),
            _ => prop_assert!(false, "{:?} against {:?}", ours, theirs),
        }
        Ok(())
    });
}

#[test]
fn every_repeated_key_is_told() {
    check(300, vec("[a-d]", 0..8), |keys| {
        let fields: Vec<String> = keys.iter().enumerate().map(|(i, k)| format!("\"{k}\":{i}")).collect();
        let (value, told) = json::parse(format!("{{\"o\":{{{}}}}}", fields.join(",")).as_bytes()).unwrap();
        for key in ["a", "b", "c", "d"] {
            let places: Vec<usize> = (0..keys.len()).filter(|i| keys[*i] == key).collect();
            prop_assert_eq!(told.contains(&format!("o.{key}")), places.len() > 1);
            let last = places.last().map(|i| Value::from(*i));
            prop_assert_eq!(value["o"].get(key), last.as_ref());
        }
        Ok(())
    });
}
