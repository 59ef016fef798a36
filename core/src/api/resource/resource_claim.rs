//! ResourceClaim: devices that somebody asks for, and those that were given.

use super::claims::{default_claim, validate_claim, validate_reference};
use super::configuration::{validate_driver, validate_set};
use super::devices::validate_pool_name;
use crate::api::BuiltinOptions;
use crate::api::kit::checks::{drop_status, keep_other_half, needed_name, required};
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::{immutable, validate_name};
use crate::api::kit::names::NameRule;
use crate::api::kit::{
    ErrorSink, Path, at, column, count, describe, get, list, name_column, object_mut, sub, text,
};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::Value;
use std::sync::Arc;

const CONSUMERS_MAX: usize = 256;
const RESULTS_MAX: usize = 32;

/// The descriptor of ResourceClaim.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        status: true,
        strategy: Arc::new(ClaimRules),
        columns: vec![
            name_column(),
            column("State", "string", "What has become of the claim.", |o, _| state(o).into()),
            age_column(),
        ],
        ..describe::<ResourceClaim>(Scope::Namespaced)
    }
}

fn state(claim: &Value) -> String {
    let deleted = get(sub(claim, "metadata"), "deletionTimestamp").is_some();
    let status = sub(claim, "status");
    let allocated = get(status, "allocation").is_some();
    let states = [
        ("deleted", deleted),
        ("pending", !deleted && !allocated),
        ("allocated", allocated),
        ("reserved", allocated && count(status, "reservedFor") > 0),
    ];
    states.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect::<Vec<_>>().join(",")
}

struct ClaimRules;

impl Strategy for ClaimRules {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object_mut(object, "spec") {
            default_claim(spec);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        drop_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        keep_other_half(object, old, cx);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        validate_claim(sub(object, "spec"), &Path::Root.child("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource == Some("status") {
            return validate_status(object, old);
        }
        let mut errors = ErrorList::new();
        immutable(sub(object, "spec"), sub(old, "spec"), &Path::Root.child("spec"), &mut errors);
        errors
    }
}

fn validate_status(claim: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let (status, path) = (sub(claim, "status"), Path::Root.child("status"));
    let consumers = list(status, "reservedFor");
    let at_consumers = path.child("reservedFor");
    validate_set(consumers, CONSUMERS_MAX, |c| text(c, "uid"), &at_consumers, &mut errors);
    for (i, consumer) in consumers.iter().enumerate() {
        required(consumer, &["resource", "name", "uid"], &at_consumers.index(i), &mut errors);
    }
    let allocation = get(status, "allocation");
    if !consumers.is_empty() && allocation.is_none() {
        errors.forbidden(&at_consumers, "may not be specified when `allocated` is not set");
    }
    let deleted = get(sub(claim, "metadata"), "deletionTimestamp").is_some();
    let before = list(sub(old, "status"), "reservedFor");
    if deleted && consumers.iter().any(|consumer| !before.contains(consumer)) {
        let detail =
            "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.forbidden(&at_consumers, detail);
    }
    let at_allocation = path.child("allocation");
    match (allocation, get(sub(old, "status"), "allocation")) {
        (Some(new), Some(old)) => immutable(new, old, &at_allocation, &mut errors),
        (Some(new), None) => validate_allocation(claim, new, &at_allocation, &mut errors),
        (None, _) => {}
    }
    errors
}

fn validate_allocation(claim: &Value, allocation: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let requests = at(claim, &["spec", "devices"]);
    let devices = path.child("devices");
    let at_results = devices.child("results");
    let results = list(sub(allocation, "devices"), "results");
    if results.len() > RESULTS_MAX {
        errors.too_many(&at_results, results.len(), RESULTS_MAX);
    }
    for (i, result) in results.iter().enumerate() {
        let item = at_results.index(i);
        validate_reference(text(result, "request"), requests, &item.child("request"), errors);
        validate_driver(text(result, "driver"), &item.child("driver"), errors);
        validate_pool_name(text(result, "pool"), &item.child("pool"), errors);
        needed_name(result, "device", NameRule::Label, &item, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use serde_json::json;

    #[test]
    fn claims_stay_and_their_status_fits() {
        let claim = |status: Value| {
            json!({"metadata": {"name": "c"}, "status": status,
            "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}})
        };
        let check = |status: Value, old: Value, wanted: &[&str]| {
            let errors = ClaimRules.validate_update(&claim(status), &claim(old), write(Some("status")));
            assert_eq!(texts(&errors), wanted);
        };
        let given = json!({"devices": {"results": [{"request": "r", "driver": "d.example.com", "pool": "p", "device": "x"}]}});
        let pod = json!({"resource": "pods", "name": "p", "uid": "u"});
        check(json!({"allocation": given, "reservedFor": [pod]}), json!({}), &[]);
        check(
            json!({"reservedFor": [pod]}),
            json!({}),
            &["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"],
        );
        check(
            json!({"allocation": {"devices": {"results": [{"request": "q", "driver": "d", "pool": "p"}]}}}),
            json!({}),
            &[
                "status.allocation.devices.results[0].request: Invalid value: \"q\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
                "status.allocation.devices.results[0].device: Required value",
            ],
        );
        let mut other = given.clone();
        other["devices"]["results"][0]["device"] = "y".into();
        let errors =
            validate_status(&claim(json!({"allocation": other})), &claim(json!({"allocation": given})));
        assert_eq!(errors.len(), 1);
        let mut changed = claim(json!({}));
        changed["spec"]["devices"]["requests"][0]["name"] = "s".into();
        assert_eq!(ClaimRules.validate_update(&changed, &claim(json!({})), write(None)).len(), 1);
        let columns = descriptor(&BuiltinOptions::default()).columns;
        let cells = row(&columns, &claim(json!({"allocation": given, "reservedFor": [pod]})));
        assert_eq!(cells, json!(["c", "allocated,reserved", "<unknown>"]));
        assert_eq!(state(&claim(json!({}))), "pending");
    }
}
