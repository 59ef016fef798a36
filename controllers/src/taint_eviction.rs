//! Pods leave nodes whose `NoExecute` taints they do not tolerate, at once or when their patience ends.

use crate::pods;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint, Toleration};
use kubewright_core::{ApiError, ContentType, Resource};
use kubewright_reconcile::client::DeleteOptions;
use kubewright_reconcile::{Action, Context, Controller, ObjectKey, Reconciler};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const NO_EXECUTE: &str = "NoExecute";

/// The taint eviction controller.
pub fn controller() -> Controller {
    Controller::for_kind::<Node>("taint-eviction")
        .watches::<Pod>(|pod, cx| {
            let name = pods::node_name(pod);
            let node = cx.informers().of::<Node>().get("", name);
            node.filter(|n| evicts(n)).map(|_| ObjectKey::new("", name)).into_iter().collect()
        })
        .concurrency(8)
        .reports_as("taint-eviction-controller")
        .with(TaintEviction::default())
}

fn evicting(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|s| s.taints.iter().flatten()).filter(|t| t.effect == NO_EXECUTE)
}

fn evicts(node: &Node) -> bool {
    evicting(node).next().is_some()
}

#[derive(Default)]
struct TaintEviction {
    /// When taints without a time of their own were seen first: those that people set by hand.
    seen: Mutex<HashMap<ObjectKey, Vec<(Taint, Timestamp)>>>,
}

impl Reconciler<Node> for TaintEviction {
    type Error = ApiError;

    async fn reconcile(&self, node: Arc<Node>, cx: &Context) -> Result<Action, ApiError> {
        let now = cx.now();
        let taints = self.dated(&node, now);
        if taints.is_empty() {
            return Ok(Action::Done);
        }
        let mut next: Option<Duration> = None;
        for pod in pods::on_node(node.name(), cx).into_iter().filter(|p| !pods::is_terminating(p)) {
            let Some(end) = end_of_patience(&pod, &taints) else { continue };
            let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
            match left.is_zero() {
                true => evict(&pod, cx).await?,
                false => next = Some(next.map_or(left, |n| n.min(left))),
            }
        }
        Ok(next.map_or(Action::Done, Action::RequeueAfter))
    }

    async fn gone(&self, key: &ObjectKey, _: &Context) -> Result<Action, ApiError> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        Ok(Action::Done)
    }
}

impl TaintEviction {
    /// The evicting taints, each with when it came.
    fn dated(&self, node: &Node, now: Timestamp) -> Vec<(Taint, Timestamp)> {
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let old = all.remove(&ObjectKey::of(node)).unwrap_or_default();
        let date = |taint: &Taint| {
            let seen = || old.iter().find(|(t, _)| t == taint).map(|(_, at)| *at);
            taint.time_added.as_ref().map(|t| t.0).or_else(seen).unwrap_or(now)
        };
        let dated: Vec<_> = evicting(node).map(|t| (t.clone(), date(t))).collect();
        if !dated.is_empty() {
            all.insert(ObjectKey::of(node), dated.clone());
        }
        dated
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let fits = |own: Option<&String>, of_taint: &str| own.is_none_or(|o| o.is_empty() || o == of_taint);
    let value = match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""),
        _ => false,
    };
    fits(toleration.effect.as_ref(), &taint.effect) && fits(toleration.key.as_ref(), &taint.key) && value
}

/// When a pod has to leave: in the past for a taint that it does not tolerate, `None` where it tolerates all for ever.
fn end_of_patience(pod: &Pod, taints: &[(Taint, Timestamp)]) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or(&[]);
    // A pod that came after the taint has its whole patience still.
    let born = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |t| t.0);
    let mut end: Option<Timestamp> = None;
    for (taint, added) in taints {
        let mut matching = tolerations.iter().filter(|t| tolerates(t, taint)).peekable();
        if matching.peek().is_none() {
            return Some(Timestamp::MIN);
        }
        let Some(seconds) = matching.filter_map(|t| t.toleration_seconds).min() else { continue };
        let patience = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let of_taint = (*added).max(born).checked_add(patience).unwrap_or(Timestamp::MAX);
        end = Some(end.map_or(of_taint, |e| e.min(of_taint)));
    }
    end
}

async fn evict(pod: &Pod, cx: &Context) -> Result<(), ApiError> {
    let mut conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    conditions.retain(|c| c.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("DeletionByTaintManager".to_owned()),
        message: Some("Taint manager: deleting due to NoExecute taint".to_owned()),
        last_transition_time: Some(cx.time()),
        ..PodCondition::default()
    });
    let patch = json!({
        "metadata": {"uid": pod.uid(), "resourceVersion": pod.metadata.resource_version},
        "status": {"conditions": conditions},
    });
    let api = cx.api::<Pod>(pod.namespace().unwrap_or(""));
    match api.patch_subresource(pod.name(), "status", ContentType::MergePatch, patch).await {
        Err(e) if e.is_not_found() => return Ok(()),
        other => drop(other?),
    }
    let options = DeleteOptions { uid: Some(pod.uid().to_owned()), ..DeleteOptions::default() };
    match api.delete(pod.name(), &options).await {
        Err(e) if e.is_not_found() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubewright_core::ManualClock;
    use kubewright_reconcile::client::Api;
    use kubewright_reconcile::testing::{FakeApi, converges};
    use serde_json::Value;

    fn pod(name: &str, tolerations: Value) -> Pod {
        let spec = json!({"nodeName": "n", "containers": [], "tolerations": tolerations});
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("a pod")
    }

    #[test]
    fn patience_ends_with_the_shortest_toleration() {
        let at = |s: i64| Timestamp::from_second(s).expect("a time");
        let taint =
            |key: &str| Taint { key: key.to_owned(), effect: NO_EXECUTE.to_owned(), ..Taint::default() };
        let check = |tolerations: Value, want: Option<Timestamp>| {
            let taints = [(taint("a"), at(100)), (taint("b"), at(200))];
            let got = end_of_patience(&pod("p", tolerations.clone()), &taints);
            assert_eq!(got, want, "{tolerations}");
        };
        let every = |seconds: Value| json!([{"operator": "Exists", "tolerationSeconds": seconds}]);
        check(every(Value::Null), None);
        check(every(json!(30)), Some(at(130)));
        check(every(json!(-5)), Some(at(100)));
        let two = json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 300}, {"key": "b", "operator": "Exists", "tolerationSeconds": 10}]);
        check(two, Some(at(210)));
        check(json!([{"key": "a", "operator": "Exists"}]), Some(Timestamp::MIN));
        check(json!([]), Some(Timestamp::MIN));
    }

    #[tokio::test]
    async fn pods_leave_when_their_patience_ends() {
        let start = Timestamp::from_second(1_767_225_600).expect("a time");
        let clock = Arc::new(ManualClock::new(start));
        let server = FakeApi::with_clock(clock.clone());
        let node = json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "x", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]}});
        let node = serde_json::from_value(node).expect("a node");
        Api::<Node>::all(server.client()).create(&node).await.expect("created");
        let pods = Api::<Pod>::namespaced(server.client(), "default");
        let patient = |s: Value| json!([{"key": "x", "operator": "Exists", "tolerationSeconds": s}]);
        let all = [
            pod("none", json!([])),
            pod("other", json!([{"key": "y", "operator": "Exists"}])),
            pod("minute", patient(json!(60))),
            pod("ever", patient(Value::Null)),
        ];
        for pod in &all {
            pods.create(pod).await.expect("created");
        }
        let count = || server.count(&Pod::resource());
        converges(&server, [controller()], || count() == 2).await.expect("converges");
        clock.advance(Duration::from_secs(61));
        converges(&server, [controller()], || count() == 1).await.expect("converges");
        assert!(pods.get("ever").await.is_ok());
    }
}
