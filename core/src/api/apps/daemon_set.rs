//! DaemonSet: one pod of a template on each node that suits.

use crate::api::BuiltinOptions;
use crate::api::core::pod::{default_template, template_warnings, validate_template};
use crate::api::kit::checks::{
    drop_status, keep_other_half, lasting, never_less, none_negative, selector_fits,
};
use crate::api::kit::columns::{age_column, labels, template_columns};
use crate::api::kit::meta::{immutable, validate_name};
use crate::api::kit::names::NameRule;
use crate::api::kit::{
    ErrorSink, Path, at, column, default_text, default_to, describe, ensure, get, int, name_column, names,
    object_mut, same, selectors, set, sub, text,
};
use crate::api::policy::pod_disruption_budget::{percent, validate_int_or_percent};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::Value;
use std::sync::Arc;

/// Where upstream keeps the number of the template, which the first versions had as a field.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The descriptor of DaemonSet.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: names(&["ds"]),
        categories: names(&["all"]),
        status: true,
        generation: true,
        strategy: Arc::new(DaemonSetRules),
        columns: columns(),
        ..describe::<DaemonSet>(Scope::Namespaced)
    }
}

fn in_status(object: &Value, field: &str) -> Value {
    int(sub(object, "status"), field).unwrap_or(0).into()
}

fn columns() -> Vec<PrinterColumn> {
    let mut columns = vec![
        name_column(),
        column("Desired", "integer", "How many nodes should run a pod.", |o, _| {
            in_status(o, "desiredNumberScheduled")
        }),
        column("Current", "integer", "How many of them run one.", |o, _| {
            in_status(o, "currentNumberScheduled")
        }),
        column("Ready", "integer", "How many of those are ready.", |o, _| in_status(o, "numberReady")),
        column("Up-to-date", "integer", "How many run the present template.", |o, _| {
            in_status(o, "updatedNumberScheduled")
        }),
        column("Available", "integer", "How many are ready for long enough.", |o, _| {
            in_status(o, "numberAvailable")
        }),
        column("Node Selector", "string", "Which nodes suit.", |o, _| {
            labels(at(o, &["spec", "template", "spec"]), "nodeSelector").into()
        }),
        age_column(),
    ];
    columns.extend(template_columns());
    columns
}

struct DaemonSetRules;

impl Strategy for DaemonSetRules {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        if let Some(strategy) = ensure(spec, "updateStrategy") {
            default_text(strategy, "type", "RollingUpdate");
            if text(strategy, "type") == "RollingUpdate"
                && let Some(rolling) = ensure(strategy, "rollingUpdate")
            {
                default_to(rolling, "maxUnavailable", 1);
                default_to(rolling, "maxSurge", 0);
            }
        }
        default_to(spec, "revisionHistoryLimit", 10);
        if let Some(template) = object_mut(spec, "template") {
            default_template(template);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: WriteContext<'_>) {
        drop_status(object);
        let given = template_generation(object);
        set_template_generation(object, given.max(1));
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        keep_other_half(object, old, cx);
        let template = |o: &Value| at(o, &["spec", "template"]).clone();
        let number = template_generation(old).max(1);
        let changed = !same(&template(object), &template(old));
        set_template_generation(object, if changed { number + 1 } else { number });
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        validate_spec(sub(object, "spec"), &Path::Root.child("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource == Some("status") {
            return validate_status(object, old);
        }
        let mut errors = self.validate(object);
        let selector = |o| sub(sub(o, "spec"), "selector");
        let spec = Path::Root.child("spec");
        immutable(selector(object), selector(old), &spec.child("selector"), &mut errors);
        errors
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        template_warnings(object)
    }
}

fn template_generation(object: &Value) -> i64 {
    text(at(object, &["metadata", "annotations"]), TEMPLATE_GENERATION).parse().unwrap_or(0)
}

fn set_template_generation(object: &mut Value, number: i64) {
    if let Some(annotations) = ensure(object, "metadata").and_then(|m| ensure(m, "annotations")) {
        set(annotations, TEMPLATE_GENERATION, number.to_string());
    }
}

fn validate_spec(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let at_selector = path.child("selector");
    match get(spec, "selector") {
        None => errors.required(&at_selector, ""),
        Some(selector) => {
            selectors::validate(selector, &at_selector, errors);
            selector_fits(spec, path, errors);
            if selectors::is_empty(selector) {
                errors.invalid(&at_selector, selector.clone(), "empty selector is invalid for daemonset");
            }
        }
    }
    validate_template(spec, path, errors);
    lasting(spec, "DaemonSet", path, errors);
    none_negative(spec, &["minReadySeconds"], path, errors);
    let strategy = sub(spec, "updateStrategy");
    let at_strategy = path.child("updateStrategy");
    match (text(strategy, "type"), get(strategy, "rollingUpdate")) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.required(&at_strategy.child("rollingUpdate"), ""),
        ("RollingUpdate", Some(rolling)) => {
            validate_rolling(rolling, &at_strategy.child("rollingUpdate"), errors);
        }
        (other, _) => errors.not_supported(&at_strategy, other, &["RollingUpdate", "OnDelete"]),
    }
    none_negative(spec, &["revisionHistoryLimit"], path, errors);
}

/// A pod is replaced either before or after the old one has gone.
fn validate_rolling(rolling: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    for field in ["maxUnavailable", "maxSurge"] {
        validate_int_or_percent(sub(rolling, field), &path.child(field), errors);
    }
    let some = |field: &str| match sub(rolling, field) {
        Value::String(text) => percent(text).unwrap_or(0) != 0,
        number => number.as_i64().unwrap_or(0) != 0,
    };
    match (some("maxUnavailable"), some("maxSurge")) {
        (true, true) => errors.invalid(
            &path.child("maxSurge"),
            sub(rolling, "maxSurge").clone(),
            "may not be set when maxUnavailable is non-zero",
        ),
        (false, false) => {
            errors.required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0");
        }
        _ => {}
    }
}

fn validate_status(object: &Value, old: &Value) -> ErrorList {
    const COUNTS: [&str; 9] = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    let mut errors = ErrorList::new();
    none_negative(sub(object, "status"), &COUNTS, &Path::Root.child("status"), &mut errors);
    never_less("collisionCount", object, old, &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{row, texts, write};
    use serde_json::json;

    fn daemons() -> Value {
        let mut object = json!({"metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {
                "nodeSelector": {"disk": "fast"}, "containers": [{"name": "c", "image": "i:1"}]}}}});
        DaemonSetRules.default(&mut object);
        object
    }

    #[test]
    fn defaults_are_upstreams() {
        let object = daemons();
        assert_eq!(
            object["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
        );
        assert_eq!(object["spec"]["revisionHistoryLimit"], 10);
        assert_eq!(
            row(&columns(), &object),
            json!(["d", 0, 0, 0, 0, 0, "disk=fast", "<unknown>", "c", "i:1", "app=x"])
        );
    }

    #[test]
    fn the_template_is_numbered() {
        let mut old = daemons();
        DaemonSetRules.prepare_for_create(&mut old, write(None));
        assert_eq!(template_generation(&old), 1);
        let mut new = old.clone();
        DaemonSetRules.prepare_for_update(&mut new, &old, write(None));
        assert_eq!(new, old);
        new["spec"]["template"]["spec"]["containers"][0]["image"] = "i:2".into();
        DaemonSetRules.prepare_for_update(&mut new, &old, write(None));
        assert_eq!(template_generation(&new), 2);
    }

    #[test]
    fn daemons_are_refused_in_upstreams_words() {
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut object = daemons();
            change(&mut object["spec"]);
            assert_eq!(texts(&DaemonSetRules.validate(&object)), wanted);
        };
        check(|_| {}, &[]);
        check(
            |s| s["updateStrategy"] = json!({"type": "Never"}),
            &[
                "spec.updateStrategy: Unsupported value: \"Never\": supported values: \"OnDelete\", \"RollingUpdate\"",
            ],
        );
        check(
            |s| s["updateStrategy"]["rollingUpdate"] = json!({"maxUnavailable": 0, "maxSurge": 0}),
            &[
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ],
        );
        check(
            |s| s["updateStrategy"]["rollingUpdate"] = json!({"maxUnavailable": 1, "maxSurge": "10%"}),
            &[
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: \"10%\": may not be set when maxUnavailable is non-zero",
            ],
        );
        check(
            |s| s["template"]["spec"]["restartPolicy"] = "Never".into(),
            &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
        );
        let old = daemons();
        let mut new = old.clone();
        new["spec"]["selector"]["matchLabels"] = json!({"app": "y"});
        new["spec"]["template"]["metadata"]["labels"] = json!({"app": "y"});
        assert_eq!(
            texts(&DaemonSetRules.validate_update(&new, &old, write(None))),
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"y\"}}: field is immutable"]
        );
    }
}
