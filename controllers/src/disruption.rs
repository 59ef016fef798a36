//! PodDisruptionBudgets: how many of the pods that a budget selects may be evicted now.

use crate::{discovery, pods};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kubewright_core::selector::Selector;
use kubewright_core::{ApiError, ApiRequest, Resource, ResponseBody, Verb};
use kubewright_reconcile::{Action, Context, Controller, EventType, ObjectKey, Reconciler, owner};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long an evicted pod may take until its deletion is seen; after that the eviction counts as failed.
const DELETION_TIMEOUT: Duration = Duration::from_secs(2 * 60);
/// Pod events of one budget within this time make one pass.
const COALESCE: Duration = Duration::from_millis(20);
const CONDITION: &str = "DisruptionAllowed";

/// The disruption controller.
pub fn controller() -> Controller {
    Controller::for_kind::<PodDisruptionBudget>("disruption")
        .reads::<ReplicaSet>()
        .reads::<Deployment>()
        .coalesce(COALESCE)
        .watches::<Pod>(budgets_of)
        .reports_as("controllermanager")
        .with(Disruption)
}

fn budgets_of(pod: &Pod, cx: &Context) -> Vec<ObjectKey> {
    let all = cx.informers().of::<PodDisruptionBudget>().list_in(pod.namespace().unwrap_or(""));
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let selects = |b: &&Arc<PodDisruptionBudget>| selector_of(b).is_ok_and(|s| s.matches(&labels));
    all.iter().filter(selects).map(|b| ObjectKey::of(&**b)).collect()
}

fn selector_of(budget: &PodDisruptionBudget) -> Result<Selector, ApiError> {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    Selector::from_label_selector(selector).map_err(|e| ApiError::bad_request(e.to_string()))
}

struct Disruption;

impl Reconciler<PodDisruptionBudget> for Disruption {
    type Error = ApiError;

    async fn reconcile(&self, budget: Arc<PodDisruptionBudget>, cx: &Context) -> Result<Action, ApiError> {
        let (status, again) = match look(&budget, cx).await {
            Ok(seen) => seen,
            // What is not known allows nothing.
            Err(e) => (failed(&budget, &e, cx), None),
        };
        if budget.status.as_ref() != Some(&status) {
            let mut new = (*budget).clone();
            new.status = Some(status);
            let api = cx.api::<PodDisruptionBudget>(budget.namespace().unwrap_or(""));
            match api.replace_status(budget.name(), &new).await {
                // An eviction took its share meanwhile: the change that it made brings the next pass.
                Err(e) if e.is_conflict() || e.is_not_found() => {}
                other => other.map(drop)?,
            }
        }
        Ok(again.map_or(Action::Done, Action::RequeueAfter))
    }
}

/// The status by the pods that are there, and after which time it may change without an event.
async fn look(
    budget: &PodDisruptionBudget,
    cx: &Context,
) -> Result<(PodDisruptionBudgetStatus, Option<Duration>), ApiError> {
    let selector = selector_of(budget)?;
    let all = cx.informers().of::<Pod>().list_in(budget.namespace().unwrap_or(""));
    let matches = |p: &Arc<Pod>| selector.matches(&p.metadata.labels.clone().unwrap_or_default());
    let selected: Vec<Arc<Pod>> = all.into_iter().filter(matches).collect();
    if selected.is_empty() {
        cx.events().event(budget, EventType::Normal, "NoPods", "Counting", "No matching pods found");
    }
    let (expected, desired) = expectation(budget, &selected, cx).await?;
    let (disrupted, again) = disrupted(budget, &selected, cx);
    let counts =
        |p: &&Arc<Pod>| !pods::is_terminating(p) && !disrupted.contains_key(p.name()) && pods::is_ready(p);
    let healthy = number(selected.iter().filter(counts).count());
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let (state, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let status = PodDisruptionBudgetStatus {
        conditions: Some(vec![condition(budget, state, reason, "", budget.metadata.generation, cx)]),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: Some(disrupted).filter(|d| !d.is_empty()),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    };
    Ok((status, again))
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn failed(budget: &PodDisruptionBudget, error: &ApiError, cx: &Context) -> PodDisruptionBudgetStatus {
    let note = format!("Failed to calculate the number of expected pods: {error}");
    cx.events().event(budget, EventType::Warning, "CalculateExpectedPodCountFailed", "Counting", &note);
    let old = budget.status.clone().unwrap_or_default();
    let observed = old.observed_generation;
    let conditions = Some(vec![condition(budget, "False", "SyncFailed", error.message(), observed, cx)]);
    PodDisruptionBudgetStatus { disruptions_allowed: Some(0), conditions, ..old }
}

fn condition(
    budget: &PodDisruptionBudget,
    state: &str,
    reason: &str,
    message: &str,
    observed: Option<i64>,
    cx: &Context,
) -> Condition {
    let known = budget.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let since = known.into_iter().find(|c| c.type_ == CONDITION && c.status == state);
    Condition {
        type_: CONDITION.to_owned(),
        status: state.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: observed.filter(|n| *n != 0),
        last_transition_time: since.map_or_else(|| cx.time(), |c| c.last_transition_time.clone()),
    }
}

/// Pods whose eviction was allowed and whose deletion was not seen yet, and when the first of them has to be looked at again.
fn disrupted(
    budget: &PodDisruptionBudget,
    selected: &[Arc<Pod>],
    cx: &Context,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut waiting = BTreeMap::new();
    let mut again: Option<Duration> = None;
    let noted = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
    for pod in selected.iter().filter(|p| !pods::is_terminating(p)) {
        let Some(at) = noted.and_then(|n| n.get(pod.name())) else { continue };
        let waited = Duration::try_from(cx.now().duration_since(at.0)).unwrap_or_default();
        match DELETION_TIMEOUT.checked_sub(waited).filter(|rest| !rest.is_zero()) {
            Some(rest) => {
                again = Some(again.map_or(rest, |a| a.min(rest)));
                waiting.insert(pod.name().to_owned(), at.clone());
            }
            None => {
                let name = format!("{}/{}", budget.namespace().unwrap_or(""), budget.name());
                let note = format!("Pod was expected by PDB {name} to be deleted but it wasn't");
                cx.events().event(&**pod, EventType::Warning, "NotDeleted", "Evicting", &note);
            }
        }
    }
    (waiting, again)
}

/// How many pods there should be, and how many of them have to stay healthy.
async fn expectation(
    budget: &PodDisruptionBudget,
    selected: &[Arc<Pod>],
    cx: &Context,
) -> Result<(i32, i32), ApiError> {
    let spec = budget.spec.as_ref();
    if let Some(most) = spec.and_then(|s| s.max_unavailable.as_ref()) {
        let expected = expected_scale(budget, selected, cx).await?;
        return Ok((expected, (expected - share(most, expected)?).max(0)));
    }
    match spec.and_then(|s| s.min_available.as_ref()) {
        Some(IntOrString::Int(least)) => Ok((number(selected.len()), *least)),
        Some(least) => {
            let expected = expected_scale(budget, selected, cx).await?;
            Ok((expected, share(least, expected)?))
        }
        None => Ok((0, 0)),
    }
}

/// A number, or that percentage of `all`, rounded up.
fn share(value: &IntOrString, all: i32) -> Result<i32, ApiError> {
    let text = match value {
        IntOrString::Int(number) => return Ok(*number),
        IntOrString::String(text) => text,
    };
    let percent: i64 = text.strip_suffix('%').and_then(|n| n.parse().ok()).ok_or_else(|| {
        ApiError::bad_request(format!("invalid value for IntOrString: {text:?} is no percentage"))
    })?;
    Ok(i32::try_from((i64::from(all) * percent + 99).div_euclid(100)).unwrap_or(i32::MAX))
}

/// The sum of what the controllers of these pods were told to run.
async fn expected_scale(
    budget: &PodDisruptionBudget,
    selected: &[Arc<Pod>],
    cx: &Context,
) -> Result<i32, ApiError> {
    let mut scales: BTreeMap<String, i32> = BTreeMap::new();
    // By the pods' own owners, so that each is looked up once.
    let mut known: Vec<String> = Vec::new();
    let mut unmanaged = false;
    for pod in selected {
        let Some(reference) = owner::controller_of(&pod.metadata) else {
            unmanaged = true;
            continue;
        };
        if known.contains(&reference.uid) {
            continue;
        }
        let (uid, scale) = scale_of(pod, reference, cx).await?;
        known.push(reference.uid.clone());
        scales.insert(uid, scale);
    }
    if unmanaged {
        let note = "Pods selected by this PodDisruptionBudget have no controller, so the status cannot be \
                    calculated correctly; set \".spec.minAvailable\" to an integer for them.";
        cx.events().event(budget, EventType::Warning, "UnmanagedPods", "Counting", note);
    }
    Ok(scales.into_values().fold(0, i32::saturating_add))
}

/// The uid of what scales a pod, and how far: a Deployment behind its ReplicaSet, the ReplicaSet, or whatever has a scale.
async fn scale_of(pod: &Pod, reference: &OwnerReference, cx: &Context) -> Result<(String, i32), ApiError> {
    let namespace = pod.namespace().unwrap_or("");
    if reference.kind == "ReplicaSet" && reference.api_version.starts_with("apps/") {
        let set = cx.informers().of::<ReplicaSet>().get(namespace, &reference.name);
        let set = set.filter(|s| s.uid() == reference.uid).ok_or_else(|| no_controller(pod))?;
        if let Some(above) = owner::controller_of(&set.metadata).filter(|r| r.kind == "Deployment") {
            let deployment = cx.informers().of::<Deployment>().get(namespace, &above.name);
            let deployment = deployment.filter(|d| d.uid() == above.uid).ok_or_else(|| no_controller(pod))?;
            let replicas = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
            return Ok((above.uid.clone(), replicas));
        }
        return Ok((reference.uid.clone(), set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)));
    }
    let resource = discovery::resource_of(cx.client(), &reference.api_version, &reference.kind).await?;
    let resource = resource.ok_or_else(|| no_controller(pod))?;
    let get = ApiRequest::resource(Verb::Get, resource, Some(namespace), Some(&reference.name));
    match cx.client().send(get.subresource("scale")).await?.body {
        ResponseBody::Value(scale) if scale["metadata"]["uid"] == reference.uid.as_str() => {
            let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
            Ok((reference.uid.clone(), i32::try_from(replicas).unwrap_or(i32::MAX)))
        }
        _ => Err(no_controller(pod)),
    }
}

fn no_controller(pod: &Pod) -> ApiError {
    ApiError::bad_request(format!("found no controllers for pod {:?}", pod.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_up() {
        let check = |value: IntOrString, all: i32, wanted: Option<i32>| {
            assert_eq!(share(&value, all).ok(), wanted, "{value:?} of {all}");
        };
        check(IntOrString::Int(3), 10, Some(3));
        check(IntOrString::String("50%".to_owned()), 3, Some(2));
        check(IntOrString::String("0%".to_owned()), 3, Some(0));
        check(IntOrString::String("100%".to_owned()), 7, Some(7));
        check(IntOrString::String("half".to_owned()), 7, None);
    }
}
