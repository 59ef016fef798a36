//! RuntimeClass: how a node is to run the containers of a pod.

use crate::api::BuiltinOptions;
use crate::api::core::pod::validate_tolerations;
use crate::api::kit::columns::age_column;
use crate::api::kit::meta::{immutable, validate_name};
use crate::api::kit::names::{NameRule, label};
use crate::api::kit::resource_names::{validate_amount, validate_container};
use crate::api::kit::selectors::validate_labels;
use crate::api::kit::{ErrorSink, Path, column, describe, entries, get, list, name_column, same, sub, text};
use crate::resource::{Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::node::v1::RuntimeClass;
use serde_json::Value;
use std::sync::Arc;

/// The descriptor of RuntimeClass.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        strategy: Arc::new(RuntimeClassRules),
        columns: vec![
            name_column(),
            column("Handler", "string", "What the node's runtime calls it.", |o, _| {
                text(o, "handler").into()
            }),
            age_column(),
        ],
        ..describe::<RuntimeClass>(Scope::Cluster)
    }
}

struct RuntimeClassRules;

impl Strategy for RuntimeClassRules {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        let root = Path::Root;
        let handler = text(object, "handler");
        for problem in label(handler) {
            errors.invalid(&root.child("handler"), handler, &problem);
        }
        let overhead = root.child("overhead");
        let fixed = overhead.child("podFixed");
        let limits = fixed.child("limits");
        for (name, amount) in entries(sub(object, "overhead"), "podFixed") {
            validate_container(name, &limits.key(name), &mut errors);
            validate_amount(name, amount, &limits.key(name), &mut errors);
        }
        if let Some(scheduling) = get(object, "scheduling") {
            validate_scheduling(scheduling, &root.child("scheduling"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, _: WriteContext<'_>) -> ErrorList {
        let mut errors = self.validate(object);
        let field = "handler";
        immutable(sub(object, field), sub(old, field), &Path::Root.child(field), &mut errors);
        errors
    }
}

fn validate_scheduling(scheduling: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_labels(scheduling, "nodeSelector", path, errors);
    validate_tolerations(scheduling, path, errors);
    let at = path.child("tolerations");
    let tolerations = list(scheduling, "tolerations");
    for (i, toleration) in tolerations.iter().enumerate() {
        if tolerations[..i].iter().any(|earlier| same(earlier, toleration)) {
            errors.duplicate(&at.index(i), toleration.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kit::checks::testing::{fields, write};
    use serde_json::json;

    #[test]
    fn classes_are_checked_and_keep_their_handler() {
        let check = |object: Value, wanted: &[&str]| {
            assert_eq!(fields(&RuntimeClassRules.validate(&object)), wanted, "{object}");
        };
        let good =
            json!({"metadata": {"name": "c"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "100m"}}});
        check(good.clone(), &[]);
        check(json!({"handler": "a_b"}), &["handler"]);
        check(
            json!({"handler": "a", "overhead": {"podFixed": {"cpu": "-1"}}}),
            &["overhead.podFixed.limits[cpu]"],
        );
        let toleration = json!({"key": "a", "operator": "Exists"});
        check(
            json!({"handler": "a", "scheduling": {"nodeSelector": {"a b": "c"}, "tolerations": [toleration, toleration]}}),
            &["scheduling.nodeSelector", "scheduling.tolerations[1]"],
        );
        let mut other = good.clone();
        other["handler"] = "other".into();
        assert_eq!(fields(&RuntimeClassRules.validate_update(&other, &good, write(None))), ["handler"]);
    }
}
