//! A pod's quality-of-service class, which says whom a node may push out first.

use crate::ErrorList;
use crate::api::kit::quantities::nanos;
use crate::api::kit::{ErrorSink, Path, at, get, list, sub, text};
use serde_json::Value;
use std::collections::BTreeMap;

const COUNTED: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed` where every container limits processor and memory and asks for exactly that, `BestEffort` where none says anything of
/// them, else `Burstable`.
pub fn qos_class(pod: &Value) -> &'static str {
    let spec = sub(pod, "spec");
    if get(spec, "resources").is_some() {
        return class_of(std::slice::from_ref(spec).iter());
    }
    class_of(list(spec, "containers").iter().chain(list(spec, "initContainers")))
}

fn class_of<'a>(owners: impl Iterator<Item = &'a Value>) -> &'static str {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut guaranteed = true;
    for owner in owners {
        add(&mut requests, at(owner, &["resources", "requests"]));
        let limited = add(&mut limits, at(owner, &["resources", "limits"]));
        guaranteed &= limited == COUNTED.len();
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    if guaranteed && requests == limits { "Guaranteed" } else { "Burstable" }
}

/// Adds the amounts above zero of a list to the sums; gives how many of the counted resources the list has.
fn add(sums: &mut BTreeMap<&'static str, i128>, amounts: &Value) -> usize {
    let mut found = 0;
    for name in COUNTED {
        if let Some(amount) = amounts.get(name).and_then(nanos).filter(|n| *n > 0) {
            let sum: &mut i128 = sums.entry(name).or_insert(0);
            *sum = sum.saturating_add(amount);
            found += 1;
        }
    }
    found
}

/// The class in status, where set, must be the computed one.
pub(super) fn validate(pod: &Value, errors: &mut ErrorList) {
    let stated = text(sub(pod, "status"), "qosClass");
    let class = qos_class(pod);
    if !stated.is_empty() && stated != class {
        let status = Path::Root.child("status");
        errors.invalid(&status.child("qosClass"), stated, &format!("must be {class}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes_come_from_resources() {
        let check = |containers: Value, wanted: &str| {
            assert_eq!(qos_class(&json!({"spec": {"containers": containers}})), wanted);
        };
        let full = json!({"cpu": "1", "memory": "1Gi"});
        check(json!([{}]), "BestEffort");
        check(json!([{"resources": {"limits": {"cpu": "0"}}}]), "BestEffort");
        check(json!([{"resources": {"limits": full, "requests": full}}]), "Guaranteed");
        check(
            json!([{"resources": {"limits": full, "requests": {"cpu": "1000m", "memory": "1024Mi"}}}]),
            "Guaranteed",
        );
        check(json!([{"resources": {"limits": full, "requests": full}}, {}]), "Burstable");
        check(json!([{"resources": {"requests": {"cpu": "1m"}}}]), "Burstable");
    }
}
