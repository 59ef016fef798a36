//! Whether a node takes a pod that was given to it: its selector, its resources.

use crate::agent::Inner;
use crate::resources::pod_requests;
use k8s_openapi::api::core::v1::{NodeSelectorTerm, Pod, PodSpec};
use kubewright_storage::fields::nanos;
use std::collections::BTreeMap;

/// Why a node refuses a pod; it becomes the pod's reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The reason of the event, which is one of a few.
    pub(crate) event: &'static str,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Refusal {
    fn new(reason: &str, message: String) -> Self {
        let event = match reason {
            "OutOfcpu" => "OutOfcpu",
            "OutOfmemory" => "OutOfmemory",
            "OutOfpods" => "OutOfpods",
            "NodeAffinity" => "NodeAffinity",
            "PodOSNotSupported" => "PodOSNotSupported",
            _ => "UnexpectedAdmissionError",
        };
        Refusal { event, reason: reason.to_owned(), message }
    }
}

/// Decides about a new pod.
pub(crate) fn admit(a: &Inner, pod: &Pod) -> Result<(), Refusal> {
    let spec = crate::policy::spec(pod);
    if let Some(os) = spec.os.as_ref().filter(|os| os.name != "linux") {
        let message = format!("Failed to admit pod as the OS field doesn't match node OS: {}", os.name);
        return Err(Refusal::new("PodOSNotSupported", message));
    }
    if !matches_node(&spec, &a.settings.labels, &a.name) {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Err(Refusal::new("NodeAffinity", message.to_owned()));
    }
    let uid = pod.metadata.uid.as_deref().unwrap_or("");
    let others = a.active_pods(uid);
    let capacity: BTreeMap<String, i128> =
        a.settings.allocatable().iter().filter_map(|(k, v)| Some((k.clone(), nanos(v)?))).collect();
    let mut used: BTreeMap<String, i128> = BTreeMap::new();
    for other in &others {
        let Some(spec) = &other.spec else { continue };
        for (name, amount) in pod_requests(spec) {
            *used.entry(name).or_default() += amount;
        }
    }
    let mut wanted = pod_requests(&spec);
    wanted.insert("pods".to_owned(), NANO);
    used.insert("pods".to_owned(), NANO * i128::try_from(others.len()).unwrap_or(i128::MAX / NANO));
    fits(&wanted, &used, &capacity)
}

const NANO: i128 = 1_000_000_000;

fn fits(
    wanted: &BTreeMap<String, i128>,
    used: &BTreeMap<String, i128>,
    capacity: &BTreeMap<String, i128>,
) -> Result<(), Refusal> {
    for (name, amount) in wanted.iter().filter(|(_, a)| **a > 0) {
        let (taken, all) = (used.get(name).copied().unwrap_or(0), capacity.get(name).copied().unwrap_or(0));
        if taken + amount > all {
            let unit = if name == "cpu" { NANO / 1000 } else { NANO };
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {}, used: {}, capacity: {}",
                amount / unit,
                taken / unit,
                all / unit
            );
            return Err(Refusal::new(&format!("OutOf{name}"), message));
        }
    }
    Ok(())
}

/// Whether node selector and required node affinity fit.
fn matches_node(spec: &PodSpec, labels: &BTreeMap<String, String>, name: &str) -> bool {
    if spec.node_selector.iter().flatten().any(|(k, v)| labels.get(k) != Some(v)) {
        return false;
    }
    let required = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    match required.and_then(|n| n.required_during_scheduling_ignored_during_execution.as_ref()) {
        Some(selector) => selector.node_selector_terms.iter().any(|t| term(t, labels, name)),
        None => true,
    }
}

fn term(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or(&[]);
    let fields = term.match_fields.as_deref().unwrap_or(&[]);
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let holds = |operator: &str, values: &[String], value: Option<&str>| match operator {
        "In" => value.is_some_and(|v| values.iter().any(|x| x == v)),
        "NotIn" => !value.is_some_and(|v| values.iter().any(|x| x == v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" | "Lt" => {
            let number = |t: &str| t.parse::<i64>().ok();
            let pair = value.and_then(number).zip(values.first().and_then(|v| number(v)));
            pair.is_some_and(|(have, limit)| if operator == "Gt" { have > limit } else { have < limit })
        }
        _ => false,
    };
    let values = |v: &Option<Vec<String>>| v.clone().unwrap_or_default();
    expressions.iter().all(|e| holds(&e.operator, &values(&e.values), labels.get(&e.key).map(String::as_str)))
        && fields
            .iter()
            .all(|f| f.key == "metadata.name" && holds(&f.operator, &values(&f.values), Some(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn selectors_must_fit() {
        let labels: BTreeMap<String, String> =
            [("disk", "ssd"), ("n", "5")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let check = |spec: Value, wanted: bool| {
            let mut full = json!({"containers": []});
            full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let parsed: PodSpec = serde_json::from_value(full).unwrap();
            assert_eq!(matches_node(&parsed, &labels, "node-1"), wanted, "{spec}");
        };
        let affinity = |term: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}});
        let expr = |key: &str, op: &str, values: Value| {
            affinity(json!({"matchExpressions": [{"key": key, "operator": op, "values": values}]}))
        };
        check(json!({}), true);
        check(json!({"nodeSelector": {"disk": "ssd"}}), true);
        check(json!({"nodeSelector": {"disk": "hdd"}}), false);
        check(expr("disk", "In", json!(["ssd"])), true);
        check(expr("disk", "NotIn", json!(["ssd"])), false);
        check(expr("none", "NotIn", json!(["ssd"])), true);
        check(expr("n", "Gt", json!(["4"])), true);
        check(expr("n", "Lt", json!(["4"])), false);
        check(expr("none", "Exists", json!([])), false);
        check(
            affinity(
                json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}),
            ),
            true,
        );
        check(affinity(json!({})), false);
    }

    #[test]
    fn resources_must_suffice() {
        let map = |cpu: i128| BTreeMap::from([("cpu".to_owned(), cpu * NANO)]);
        assert_eq!(fits(&map(1), &map(1), &map(2)), Ok(()));
        let refusal = fits(&map(1), &map(2), &map(2)).unwrap_err();
        assert_eq!(refusal.reason, "OutOfcpu");
        assert!(
            refusal.message.ends_with("requested: 1000, used: 2000, capacity: 2000"),
            "{}",
            refusal.message
        );
    }
}
