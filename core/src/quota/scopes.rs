//! The scopes of a quota: which objects it is about.

use super::pods;
use crate::api::core::pod::qos_class;
use crate::api::kit::{at, list, sub, text};
use serde_json::Value;

/// One scope that an object has to be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeTerm {
    name: String,
    operator: String,
    values: Vec<String>,
}

impl ScopeTerm {
    /// The scopes of a quota's spec.
    pub fn of(spec: &Value) -> Vec<ScopeTerm> {
        let own = |v: &Value, field: &str| text(v, field).to_owned();
        let plain = list(spec, "scopes").iter().filter_map(Value::as_str).map(|name| ScopeTerm {
            name: name.to_owned(),
            operator: "Exists".to_owned(),
            values: Vec::new(),
        });
        let selected = list(sub(spec, "scopeSelector"), "matchExpressions").iter().map(|term| ScopeTerm {
            name: own(term, "scopeName"),
            operator: own(term, "operator"),
            values: list(term, "values").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        });
        plain.chain(selected).collect()
    }

    pub(super) fn holds_pod(&self, pod: &Value) -> bool {
        let terminating = || at(pod, &["spec", "activeDeadlineSeconds"]).as_i64().is_some_and(|s| s >= 0);
        match self.name.as_str() {
            "Terminating" => terminating(),
            "NotTerminating" => !terminating(),
            "BestEffort" => qos_class(pod) == "BestEffort",
            "NotBestEffort" => qos_class(pod) != "BestEffort",
            "PriorityClass" => {
                let class = text(sub(pod, "spec"), "priorityClassName");
                self.selects(&if class.is_empty() { vec![] } else { vec![class] })
            }
            "CrossNamespacePodAffinity" => pods::looks_across_namespaces(pod),
            _ => false,
        }
    }

    pub(super) fn holds_claim(&self, claim: &Value) -> bool {
        if self.name != "VolumeAttributesClass" {
            return false;
        }
        let paths: [&[&str]; 3] = [
            &["spec", "volumeAttributesClassName"],
            &["status", "currentVolumeAttributesClassName"],
            &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"],
        ];
        let classes: Vec<&str> =
            paths.iter().filter_map(|p| at(claim, p).as_str()).filter(|c| !c.is_empty()).collect();
        self.selects(&classes)
    }

    /// Whether one of the classes of an object (or having none) is selected.
    fn selects(&self, classes: &[&str]) -> bool {
        let named = |class: &&str| self.values.iter().any(|v| v == class);
        match self.operator.as_str() {
            "Exists" => !classes.is_empty(),
            "DoesNotExist" => classes.is_empty(),
            "In" => classes.iter().any(named),
            "NotIn" => classes.is_empty() || classes.iter().any(|c| !named(c)),
            _ => false,
        }
    }
}
