//! PersistentVolumeClaim: a wish for a PersistentVolume.

use super::persistent_volume::{VOLUME_MODES, attributes_class, class, phase, validate_access_modes};
use crate::api::BuiltinOptions;
use crate::api::kit::checks::one_of;
use crate::api::kit::columns::{access_modes, age_column, or};
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::quantities::{MALFORMED, nanos};
use crate::api::kit::{
    ErrorSink, Path, at, carry, column, computed, default_text, describe, ensure, get, name_column, same,
    set, sub, text,
};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};
use std::sync::Arc;

/// The descriptor of PersistentVolumeClaim.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: crate::api::kit::names(&["pvc"]),
        status: true,
        strategy: Arc::new(ClaimRules),
        columns: columns(),
        ..describe::<PersistentVolumeClaim>(Scope::Namespaced)
    }
}

fn bound(claim: &Value) -> bool {
    !text(sub(claim, "spec"), "volumeName").is_empty()
}

fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Status", "string", "The phase of the claim.", |o, _| phase(o).into()),
        column("Volume", "string", "The volume that it has.", |o, _| {
            text(sub(o, "spec"), "volumeName").into()
        }),
        column("Capacity", "string", "How much the volume holds.", |o, _| match bound(o) {
            true => at(o, &["status", "capacity", "storage"]).as_str().unwrap_or("0").into(),
            false => "".into(),
        }),
        column("Access Modes", "string", "How the volume may be mounted.", |o, _| match bound(o) {
            true => access_modes(sub(o, "status")).into(),
            false => "".into(),
        }),
        column("StorageClass", "string", "The claim's class.", |o, _| class(o).into()),
        column("VolumeAttributesClass", "string", "The claim's class of attributes.", |o, _| {
            attributes_class(o).into()
        }),
        age_column(),
        computed("VolumeMode", "string", "Whether it holds files or is a device.", 1, |o, _| {
            or(text(sub(o, "spec"), "volumeMode"), "<unset>").into()
        }),
    ]
}

struct ClaimRules;

impl Strategy for ClaimRules {
    fn default(&self, object: &mut Value) {
        if let Some(status) = ensure(object, "status") {
            default_text(status, "phase", "Pending");
        }
        if let Some(spec) = object.get_mut("spec") {
            default_claim_spec(spec);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        set(object, "status", json!({"phase": "Pending"}));
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        carry(object, old, if cx.subresource == Some("status") { "spec" } else { "status" });
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        validate_claim_spec(sub(object, "spec"), &Path::Root.child("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource == Some("status") {
            return ErrorList::new();
        }
        let mut errors = self.validate(object);
        validate_change(object, old, &mut errors);
        errors
    }
}

/// The defaults of a claim's spec, also in templates.
pub(crate) fn default_claim_spec(spec: &mut Value) {
    default_text(spec, "volumeMode", "Filesystem");
    if let Some(source) = get(spec, "dataSource").cloned()
        && get(spec, "dataSourceRef").is_none()
    {
        set(spec, "dataSourceRef", source);
    }
}

/// Validates a claim's spec, also in templates.
pub(crate) fn validate_claim_spec(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(selector) = get(spec, "selector") {
        crate::api::kit::selectors::validate(selector, &path.child("selector"), errors);
    }
    validate_access_modes(spec, path, errors);
    let resources = path.child("resources");
    match get(at(spec, &["resources", "requests"]), "storage") {
        None => errors.required(&resources.key("storage"), ""),
        Some(amount) => match nanos(amount) {
            None => errors.invalid(&resources.key("storage"), amount.clone(), MALFORMED),
            Some(n) if n <= 0 => {
                errors.invalid(&resources.key("storage"), amount.clone(), "must be greater than zero");
            }
            Some(_) => {}
        },
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        for problem in NameRule::Subdomain.problems(class) {
            errors.invalid(&path.child("storageClassName"), class, &problem);
        }
    }
    one_of(spec, "volumeMode", &VOLUME_MODES, path, errors);
}

/// A claim's spec stays, but for three things: a bound claim may ask for more, an unbound one gets its volume, and one without a class
/// gets the default one.
fn validate_change(object: &Value, old: &Value, errors: &mut ErrorList) {
    let (spec, old_spec) = (sub(object, "spec"), sub(old, "spec"));
    let path = Path::Root.child("spec");
    let may_change = |field: &str| match field {
        "volumeName" => text(old_spec, "volumeName").is_empty(),
        "resources" => bound(old) && text(sub(object, "status"), "phase") == "Bound",
        "storageClassName" => get(old_spec, "storageClassName").is_none(),
        "volumeAttributesClassName" => true,
        _ => false,
    };
    let keys = |v: &Value| v.as_object().map(|m| m.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let changed = keys(spec)
        .iter()
        .chain(&keys(old_spec))
        .any(|field| !may_change(field) && !same(sub(spec, field), sub(old_spec, field)));
    if changed {
        errors.forbidden(
            &path,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
        return;
    }
    let asked = |spec: &Value| nanos(at(spec, &["resources", "requests", "storage"]));
    if let (Some(new), Some(old)) = (asked(spec), asked(old_spec))
        && new < old
    {
        let requests = path.child("resources");
        errors.forbidden(
            &requests.child("requests").child("storage"),
            "field can not be less than status.capacity",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(amount: &str, volume: &str) -> Value {
        let mut claim = json!({"metadata": {"name": "c"}, "status": {"phase": if volume.is_empty() { "Pending" } else { "Bound" }},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": amount}}}});
        if !volume.is_empty() {
            claim["spec"]["volumeName"] = volume.into();
        }
        ClaimRules.default(&mut claim);
        claim
    }

    #[test]
    fn a_bound_claim_may_only_grow() {
        let cx = WriteContext::new(None, jiff::Timestamp::UNIX_EPOCH);
        let check = |old: Value, new: Value, wanted: usize| {
            assert_eq!(ClaimRules.validate_update(&new, &old, cx).len(), wanted, "{new}");
        };
        check(claim("1Gi", ""), claim("1Gi", "v"), 0);
        check(claim("1Gi", ""), claim("2Gi", ""), 1);
        check(claim("1Gi", "v"), claim("2Gi", "v"), 0);
        check(claim("2Gi", "v"), claim("1Gi", "v"), 1);
        check(claim("1Gi", "v"), claim("1Gi", "w"), 1);
    }

    #[test]
    fn a_claim_asks_for_storage() {
        let texts: Vec<String> =
            ClaimRules.validate(&json!({"spec": {}})).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value"
            ]
        );
    }
}
