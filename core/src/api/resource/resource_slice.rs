//! ResourceSlice: devices that a driver offers.

use super::configuration::{validate_driver, validate_set};
use super::devices::{validate_counters, validate_device, validate_pool_name};
use crate::api::BuiltinOptions;
use crate::api::kit::checks::{needed_name, stay};
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::{immutable, validate_name};
use crate::api::kit::names::{NameRule, subdomain};
use crate::api::kit::{
    ErrorSink, Path, at, column, count, describe, field_at, flag, get, int, list, name_column, sub, text,
};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::resource::v1::ResourceSlice;
use serde_json::Value;
use std::sync::Arc;

const DEVICES_MAX: usize = 128;
const DEVICES_WITH_COUNTERS_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;

/// The descriptor of ResourceSlice.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        generation: true,
        strategy: Arc::new(SliceRules),
        columns: columns(),
        selectable_fields: vec![
            field_at("spec.nodeName", |o| text(sub(o, "spec"), "nodeName").to_owned()),
            field_at("spec.driver", |o| text(sub(o, "spec"), "driver").to_owned()),
        ],
        ..describe::<ResourceSlice>(Scope::Cluster)
    }
}

fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Node", "string", "The node that has the devices.", |o, _| {
            text(sub(o, "spec"), "nodeName").into()
        }),
        column("Driver", "string", "The driver that offers them.", |o, _| {
            text(sub(o, "spec"), "driver").into()
        }),
        column("Pool", "string", "The pool that they belong to.", |o, _| {
            text(at(o, &["spec", "pool"]), "name").into()
        }),
        age_column(),
    ]
}

struct SliceRules;

impl Strategy for SliceRules {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        validate_spec(sub(object, "spec"), &Path::Root.child("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = self.validate(object);
        let spec = Path::Root.child("spec");
        let pool = |o| at(o, &["spec", "pool", "name"]);
        immutable(pool(object), pool(old), &spec.child("pool").child("name"), &mut errors);
        stay(&["driver", "nodeName"], object, old, &mut errors);
        errors
    }
}

fn validate_spec(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_driver(text(spec, "driver"), &path.child("driver"), errors);
    let (pool, at_pool) = (sub(spec, "pool"), path.child("pool"));
    validate_pool_name(text(pool, "name"), &at_pool.child("name"), errors);
    let slices = int(pool, "resourceSliceCount").unwrap_or(0);
    if slices <= 0 {
        errors.invalid(&at_pool.child("resourceSliceCount"), slices, "must be greater than zero");
    }
    let generation = int(pool, "generation").unwrap_or(0);
    if generation < 0 {
        let detail = "must be greater than or equal to zero";
        errors.invalid(&at_pool.child("generation"), generation, detail);
    }
    validate_nodes(spec, path, errors);
    let devices = list(spec, "devices");
    if get(spec, "sharedCounters").is_some() && get(spec, "devices").is_some() {
        errors.invalid(path, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let heavy = devices.iter().any(|d| count(d, "taints") + count(d, "consumesCounters") > 0);
    let most = if heavy { DEVICES_WITH_COUNTERS_MAX } else { DEVICES_MAX };
    let at_devices = path.child("devices");
    validate_set(devices, most, |d| text(d, "name"), &at_devices, errors);
    for (i, device) in devices.iter().enumerate() {
        validate_device(device, flag(spec, "perDeviceNodeSelection"), &at_devices.index(i), errors);
    }
    let sets = list(spec, "sharedCounters");
    let at_sets = path.child("sharedCounters");
    validate_set(sets, COUNTER_SETS_MAX, |s| text(s, "name"), &at_sets, errors);
    for (i, set) in sets.iter().enumerate() {
        needed_name(set, "name", NameRule::Label, &at_sets.index(i), errors);
        validate_counters(set, &at_sets.index(i), errors);
    }
}

/// The devices are on one node, on selected ones, on all, or each says for itself.
fn validate_nodes(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    const ONE: &str =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut given: Vec<&str> = Vec::new();
    if let Some(name) = get(spec, "nodeName").and_then(Value::as_str) {
        if name.is_empty() {
            let detail = "must be either unset or set to a non-empty string";
            errors.invalid(&path.child("nodeName"), name, detail);
        } else {
            given.push("`nodeName`");
            for problem in subdomain(name) {
                errors.invalid(&path.child("nodeName"), name, &problem);
            }
        }
    }
    if let Some(selector) = get(spec, "nodeSelector") {
        given.push("`nodeSelector`");
        if count(selector, "nodeSelectorTerms") != 1 {
            let at = path.child("nodeSelector");
            let terms = sub(selector, "nodeSelectorTerms").clone();
            errors.invalid(&at.child("nodeSelectorTerms"), terms, "must have exactly one node selector term");
        }
    }
    for (field, word) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")]
    {
        match get(spec, field).and_then(Value::as_bool) {
            Some(true) => given.push(word),
            Some(false) => {
                errors.invalid(&path.child(field), false, "must be either unset or set to true");
            }
            None => {}
        }
    }
    match given.len() {
        0 => errors.required(path, ONE),
        1 => {}
        _ => errors.invalid(
            path,
            format!("{{{}}}", given.join(", ")),
            &format!("{ONE}, but multiple fields are set"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use serde_json::json;

    fn slice() -> Value {
        json!({"metadata": {"name": "s"}, "spec": {"driver": "d.example.com", "nodeName": "n",
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "x"}]}})
    }

    #[test]
    fn slices_are_refused_in_upstreams_words() {
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut object = slice();
            change(&mut object["spec"]);
            assert_eq!(texts(&SliceRules.validate(&object)), wanted);
        };
        check(|_| {}, &[]);
        check(
            |s| s["nodeName"] = Value::Null,
            &[
                "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
            ],
        );
        check(
            |s| s["allNodes"] = true.into(),
            &[
                "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
            ],
        );
        check(
            |s| s["pool"] = json!({"name": "", "resourceSliceCount": 0}),
            &[
                "spec.pool.name: Required value",
                "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
            ],
        );
        check(
            |s| s["devices"] = json!([{"name": "x"}, {"name": "x"}]),
            &["spec.devices[1]: Duplicate value: \"x\""],
        );
        let mut other = slice();
        other["spec"]["driver"] = "e.example.com".into();
        assert_eq!(
            texts(&SliceRules.validate_update(&other, &slice(), write(None))),
            ["spec.driver: Invalid value: \"e.example.com\": field is immutable"]
        );
        assert_eq!(row(&columns(), &slice()), json!(["s", "n", "d.example.com", "p", "<unknown>"]));
    }
}
