//! StatefulSet: numbered pods with names and volumes that stay.

use crate::api::BuiltinOptions;
use crate::api::core::persistent_volume_claim::{default_claim_spec, validate_claim_spec};
use crate::api::core::pod::{
    default_template, template_warnings, validate_template_at, validate_template_metadata,
};
use crate::api::kit::checks::{
    drop_status, keep_other_half, lasting, never_less, none_negative, one_of, optional_name, owner_selector,
    replicas_scale,
};
use crate::api::kit::columns::{age_column, container_images, container_names};
use crate::api::kit::meta::{non_negative, validate_name};
use crate::api::kit::names::NameRule;
use crate::api::kit::{
    ErrorSink, Path, at, column, computed, default_text, default_to, describe, ensure, get, int, list,
    list_mut, name_column, names, object_mut, same, set, sub, text,
};
use crate::api::policy::pod_disruption_budget::{percent, validate_int_or_percent};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};
use std::sync::Arc;

const RETENTION: [&str; 2] = ["Retain", "Delete"];
/// What an update may change.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// The descriptor of StatefulSet.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["sts"]),
        categories: names(&["all"]),
        status: true,
        scale: Some(replicas_scale()),
        generation: true,
        strategy: Arc::new(StatefulSetRules),
        columns: columns(),
        ..describe::<StatefulSet>(Scope::Namespaced)
    }
}

fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Ready", "string", "Ready pods of those wanted.", |o, _| {
            let ready = int(sub(o, "status"), "readyReplicas").unwrap_or(0);
            format!("{ready}/{}", int(sub(o, "spec"), "replicas").unwrap_or(0)).into()
        }),
        age_column(),
        computed("Containers", "string", "The names of the template's containers.", 1, |o, _| {
            container_names(at(o, &["spec", "template", "spec"])).into()
        }),
        computed("Images", "string", "The images of the template's containers.", 1, |o, _| {
            container_images(at(o, &["spec", "template", "spec"])).into()
        }),
    ]
}

struct StatefulSetRules;

impl Strategy for StatefulSetRules {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        default_text(spec, "podManagementPolicy", "OrderedReady");
        if let Some(strategy) = ensure(spec, "updateStrategy") {
            default_text(strategy, "type", "RollingUpdate");
            if text(strategy, "type") == "RollingUpdate"
                && let Some(rolling) = ensure(strategy, "rollingUpdate")
            {
                default_to(rolling, "partition", 0);
                default_to(rolling, "maxUnavailable", 1);
            }
        }
        if let Some(retention) = ensure(spec, "persistentVolumeClaimRetentionPolicy") {
            default_text(retention, "whenDeleted", "Retain");
            default_text(retention, "whenScaled", "Retain");
        }
        default_to(spec, "replicas", 1);
        default_to(spec, "revisionHistoryLimit", 10);
        if let Some(template) = object_mut(spec, "template") {
            default_template(template);
        }
        list_mut(spec, "volumeClaimTemplates").for_each(default_claim);
    }

    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        drop_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        keep_other_half(object, old, cx);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        // Its pods take their host names from it.
        validate_name(object, NameRule::Label, &mut errors);
        let path = Path::Root.child("spec");
        optional_name(sub(object, "spec"), "serviceName", NameRule::Label, &path, &mut errors);
        validate_spec(sub(object, "spec"), &path, &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource == Some("status") {
            return validate_status(object, old);
        }
        let mut errors = ErrorList::new();
        let path = Path::Root.child("spec");
        validate_spec(sub(object, "spec"), &path, &mut errors);
        validate_change(sub(object, "spec"), sub(old, "spec"), &path, &mut errors);
        errors
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        template_warnings(object)
    }
}

fn default_claim(claim: &mut Value) {
    default_text(claim, "apiVersion", "v1");
    default_text(claim, "kind", "PersistentVolumeClaim");
    if let Some(spec) = object_mut(claim, "spec") {
        default_claim_spec(spec);
    }
    if let Some(status) = ensure(claim, "status") {
        default_text(status, "phase", "Pending");
    }
}

fn validate_spec(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match text(spec, "podManagementPolicy") {
        "" => errors.required(&path.child("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => {}
        other => {
            errors.invalid(&path.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'")
        }
    }
    validate_strategy(sub(spec, "updateStrategy"), &path.child("updateStrategy"), errors);
    let retention = path.child("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let policy = sub(spec, "persistentVolumeClaimRetentionPolicy");
        one_of(policy, field, &RETENTION, &retention, errors);
    }
    none_negative(spec, &["replicas", "minReadySeconds", "revisionHistoryLimit"], path, errors);
    non_negative(sub(spec, "ordinals"), "start", &path.child("ordinals"), errors);
    owner_selector(spec, "statefulset", path, errors);
    let template = with_claims(spec);
    validate_template_at(&template, &path.child("template"), errors);
    lasting(spec, "StatefulSet", path, errors);
    let claims = path.child("volumeClaimTemplates");
    for (i, claim) in list(spec, "volumeClaimTemplates").iter().enumerate() {
        let item = claims.index(i);
        validate_template_metadata(sub(claim, "metadata"), &item.child("metadata"), errors);
        validate_claim_spec(sub(claim, "spec"), &item.child("spec"), errors);
    }
}

/// The template as its pods will have it: each claim is a volume that containers may mount.
fn with_claims(spec: &Value) -> Value {
    let mut template = sub(spec, "template").clone();
    let claims = list(spec, "volumeClaimTemplates");
    let name_of = |claim: &Value| text(sub(claim, "metadata"), "name").to_owned();
    if let Some(pod_spec) = object_mut(&mut template, "spec").filter(|_| !claims.is_empty()) {
        let mut volumes: Vec<Value> = list(pod_spec, "volumes")
            .iter()
            .filter(|volume| !claims.iter().any(|claim| name_of(claim) == text(volume, "name")))
            .cloned()
            .collect();
        for claim in claims {
            let name = name_of(claim);
            volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        }
        set(pod_spec, "volumes", volumes);
    }
    template
}

fn validate_strategy(strategy: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let rolling = get(strategy, "rollingUpdate");
    let at_rolling = path.child("rollingUpdate");
    match text(strategy, "type") {
        "" => errors.required(path, ""),
        "OnDelete" => {
            if let Some(rolling) = rolling {
                let detail = "only allowed for updateStrategy 'RollingUpdate'";
                errors.invalid(&at_rolling, rolling.clone(), detail);
            }
        }
        "RollingUpdate" => {
            let Some(rolling) = rolling else { return };
            non_negative(rolling, "partition", &at_rolling, errors);
            if let Some(most) = get(rolling, "maxUnavailable") {
                let at_most = at_rolling.child("maxUnavailable");
                if most.as_i64() == Some(0) || most.as_str().and_then(percent) == Some(0) {
                    errors.invalid(&at_most, most.clone(), "cannot be 0");
                }
                validate_int_or_percent(most, &at_most, errors);
            }
        }
        _ => errors.invalid(path, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

fn validate_change(spec: &Value, old: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let keys = |v: &Value| v.as_object().map(|m| m.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let changed = keys(spec)
        .iter()
        .chain(&keys(old))
        .any(|field| !MUTABLE.contains(&field.as_str()) && !same(sub(spec, field), sub(old, field)));
    if changed {
        errors.forbidden(
            path,
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
             'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
             'minReadySeconds' are forbidden",
        );
    }
}

fn validate_status(object: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let status = sub(object, "status");
    let path = Path::Root.child("status");
    const COUNTS: [&str; 4] = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    none_negative(status, &["replicas"], &path, &mut errors);
    none_negative(status, &COUNTS, &path, &mut errors);
    none_negative(status, &["observedGeneration", "collisionCount"], &path, &mut errors);
    let value = |field: &str| int(status, field).unwrap_or(0);
    for field in COUNTS {
        if value(field) > value("replicas") {
            errors.invalid(&path.child(field), value(field), "cannot be greater than status.replicas");
        }
    }
    if value("availableReplicas") > value("readyReplicas") {
        let detail = "cannot be greater than status.readyReplicas";
        errors.invalid(&path.child("availableReplicas"), value("availableReplicas"), detail);
    }
    never_less("collisionCount", object, old, &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};

    fn set_of() -> Value {
        let mut object = json!({"metadata": {"name": "db"}, "spec": {
            "serviceName": "db", "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [
                {"name": "c", "image": "i:1", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}});
        StatefulSetRules.default(&mut object);
        object
    }

    #[test]
    fn defaults_are_upstreams() {
        let object = set_of();
        let spec = &object["spec"];
        assert_eq!(spec["podManagementPolicy"], "OrderedReady");
        assert_eq!(
            spec["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}})
        );
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        assert_eq!((&spec["replicas"], &spec["revisionHistoryLimit"]), (&json!(1), &json!(10)));
        let claim = &spec["volumeClaimTemplates"][0];
        assert_eq!(
            (&claim["kind"], &claim["spec"]["volumeMode"]),
            (&json!("PersistentVolumeClaim"), &json!("Filesystem"))
        );
        let mut twice = object.clone();
        StatefulSetRules.default(&mut twice);
        assert_eq!(twice, object);
        assert_eq!(row(&columns(), &object), json!(["db", "0/1", "<unknown>", "c", "i:1"]));
    }

    #[test]
    fn sets_are_refused_in_upstreams_words() {
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut object = set_of();
            change(&mut object);
            assert_eq!(texts(&StatefulSetRules.validate(&object)), wanted);
        };
        check(|_| {}, &[]);
        check(
            |o| o["spec"]["podManagementPolicy"] = "Any".into(),
            &["spec.podManagementPolicy: Invalid value: \"Any\": must be 'OrderedReady' or 'Parallel'"],
        );
        check(
            |o| o["spec"]["updateStrategy"]["rollingUpdate"] = json!({"partition": -1, "maxUnavailable": 0}),
            &[
                "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
            ],
        );
        check(
            |o| o["spec"]["selector"] = json!({}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"],
        );
        check(
            |o| o["spec"]["volumeClaimTemplates"] = json!([]),
            &["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""],
        );
        check(
            |o| o["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] = "Keep".into(),
            &[
                "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Keep\": supported values: \"Delete\", \"Retain\"",
            ],
        );
        check(
            |o| o["spec"]["template"]["spec"]["activeDeadlineSeconds"] = 5.into(),
            &[
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
            ],
        );
    }

    #[test]
    fn few_fields_may_change() {
        let check = |change: fn(&mut Value), wanted: usize| {
            let old = set_of();
            let mut new = old.clone();
            change(&mut new["spec"]);
            let errors = StatefulSetRules.validate_update(&new, &old, write(None));
            assert_eq!(errors.len(), wanted, "{errors:?}");
        };
        check(|s| s["replicas"] = 3.into(), 0);
        check(|s| s["template"]["spec"]["containers"][0]["image"] = "i:2".into(), 0);
        check(|s| s["serviceName"] = "other".into(), 1);
        check(|s| s["podManagementPolicy"] = "Parallel".into(), 1);
        let status =
            |ready: i64| json!({"status": {"replicas": 1, "readyReplicas": ready, "collisionCount": 1}});
        let errors = StatefulSetRules.validate_update(&status(2), &status(1), write(Some("status")));
        assert_eq!(
            texts(&errors),
            ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]
        );
        let lost = json!({"status": {"replicas": 1}});
        assert_eq!(StatefulSetRules.validate_update(&lost, &status(1), write(Some("status"))).len(), 1);
    }
}
