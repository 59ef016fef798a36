//! What a client is warned of in a pod spec that is valid all the same.

use crate::api::kit::{entries, get, list, sub, text};
use serde_json::Value;
use std::collections::BTreeSet;

/// Node labels that have newer names.
const OLD_LABELS: [(&str, &str); 4] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
];

/// Volume kinds that no node of this version serves.
const GONE: [&str; 4] = ["glusterfs", "rbd", "cephfs", "storageos"];

/// The warnings of a pod spec that stands at a path.
pub(super) fn of_spec(spec: &Value, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for (key, _) in entries(spec, "nodeSelector") {
        if let Some((_, why)) = OLD_LABELS.iter().find(|(old, _)| old == key) {
            warnings.push(format!("{path}.nodeSelector[{key}]: {why}"));
        }
    }
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        for kind in GONE.iter().filter(|kind| get(volume, kind).is_some()) {
            warnings.push(format!("{path}.volumes[{i}].{kind}: no longer supported"));
        }
    }
    if get(spec, "terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|s| s < 0) {
        warnings.push(format!("{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for field in ["containers", "initContainers"] {
        for (i, container) in list(spec, field).iter().enumerate() {
            duplicate_variables(container, &format!("{path}.{field}[{i}]"), &mut warnings);
        }
    }
    warnings
}

fn duplicate_variables(container: &Value, path: &str, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (i, variable) in list(container, "env").iter().enumerate() {
        let name = text(variable, "name");
        if !seen.insert(name) {
            // Using the variable's own former value is the one good reason to name it twice.
            if !sub(variable, "value").as_str().is_some_and(|v| v.contains(&format!("$({name})"))) {
                warnings.push(format!(
                    "{path}.env[{i}]: hides previous definition of \"{name}\", which may be dropped when using apply"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_odd_is_told() {
        let spec = json!({
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "containers": [{"name": "a", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]});
        assert_eq!(
            of_spec(&spec, "spec"),
            [
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply"
            ]
        );
        assert!(of_spec(&json!({"containers": [{"name": "a"}]}), "spec").is_empty());
    }
}
