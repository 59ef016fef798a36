//! ReplicaSets: as many pods of one template as wanted.

mod rank;

use crate::claim::{children_of, claim, index_children};
use crate::pods;
use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kubewright_core::selector::Selector;
use kubewright_core::{ApiError, ApiResponse, ContentType, Reason, Resource, ResponseBody, Verb, meta};
use kubewright_reconcile::client::DeleteOptions;
use kubewright_reconcile::{Action, Context, Controller, EventType, ObjectKey, Reconciler, owner};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Creates and deletes in flight for one ReplicaSet.
const IN_FLIGHT_MAX: usize = 512;
/// Pod events of one ReplicaSet within this time make one pass.
const COALESCE: Duration = Duration::from_millis(5);
/// Passes over a ReplicaSet are at least this far apart for each pod that it has, and at most this far.
const PASS_COST_PER_POD: Duration = Duration::from_micros(10);
const PASS_PERIOD_MAX: Duration = Duration::from_millis(100);
/// The status of one ReplicaSet is written at most this often.
const STATUS_PERIOD: Duration = Duration::from_millis(50);

/// The ReplicaSet controller.
pub fn controller() -> Controller {
    Controller::for_kind::<ReplicaSet>("replicaset")
        .coalesce(COALESCE)
        .watches::<Pod>(owners_of)
        .concurrency(8)
        .reports_as("replicaset-controller")
        .with(ReplicaSets::default())
}

/// The ReplicaSet that controls a pod; for an orphan, those that may want it.
fn owners_of(pod: &Pod, cx: &Context) -> Vec<ObjectKey> {
    if owner::controller_of(&pod.metadata).is_some() {
        return owner::controller_key::<ReplicaSet, Pod>(pod).into_iter().collect();
    }
    let Some(labels) = pod.metadata.labels.as_ref().filter(|l| !l.is_empty()) else {
        return Vec::new();
    };
    let all = cx.informers().of::<ReplicaSet>().list_in(pod.namespace().unwrap_or(""));
    let wants = |set: &&Arc<ReplicaSet>| selector_of(set).is_ok_and(|s| s.matches(labels));
    all.iter().filter(wants).map(|set| ObjectKey::of(&**set)).collect()
}

fn selector_of(set: &ReplicaSet) -> Result<Selector, ApiError> {
    let selector = set.spec.as_ref().map(|s| &s.selector);
    Selector::from_label_selector(selector).map_err(|e| ApiError::bad_request(e.to_string()))
}

#[derive(Default)]
struct ReplicaSets {
    /// The last passes; only to spare work, never to decide anything.
    paces: Mutex<HashMap<ObjectKey, Pace>>,
}

/// When a ReplicaSet was looked at last, and what that cost.
#[derive(Clone, Copy)]
struct Pace {
    generation: Option<i64>,
    passed: Instant,
    pods: usize,
    /// When its status was written last.
    written: Option<Instant>,
}

impl Reconciler<ReplicaSet> for ReplicaSets {
    type Error = ApiError;

    async fn reconcile(&self, set: Arc<ReplicaSet>, cx: &Context) -> Result<Action, ApiError> {
        if let Some(rest) = self.too_soon(&set) {
            return Ok(Action::RequeueAfter(rest));
        }
        let selector = selector_of(&set)?;
        if selector.is_everything() || selector.is_nothing() {
            return Ok(Action::Done);
        }
        let informer = cx.informers().of::<Pod>();
        index_children(&informer);
        let claimed = claim(cx, &*set, &selector, &informer).await?;
        let active: Vec<Arc<Pod>> = claimed.iter().filter(|p| pods::is_active(p)).cloned().collect();
        let managed = match set.metadata.deletion_timestamp {
            None => manage(cx, &set, &active).await,
            Some(_) => Ok(()),
        };
        let terminating = claimed.iter().filter(|p| pods::is_terminating(p) && !pods::is_terminal(p)).count();
        let (status, again) = status_of(&set, &active, terminating, managed.as_ref().err(), cx);
        self.note_pass(&set, claimed.len());
        let waited = self.write_status(cx, &set, &status).await?;
        managed?;
        Ok(match waited.into_iter().chain(again).min() {
            Some(delay) => Action::RequeueAfter(delay),
            None => Action::Done,
        })
    }

    async fn gone(&self, key: &ObjectKey, _: &Context) -> Result<Action, ApiError> {
        self.paces().remove(key);
        Ok(Action::Done)
    }
}

impl ReplicaSets {
    fn paces(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectKey, Pace>> {
        self.paces.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How long a pass should wait for more events: the more pods there are to look through, the longer. A changed spec never waits.
    fn too_soon(&self, set: &ReplicaSet) -> Option<Duration> {
        let pace = self.paces().get(&ObjectKey::of(set)).copied()?;
        let pods = u32::try_from(pace.pods).unwrap_or(u32::MAX);
        let window = PASS_COST_PER_POD.saturating_mul(pods).min(PASS_PERIOD_MAX);
        let rest = window.checked_sub(pace.passed.elapsed()).filter(|rest| !rest.is_zero())?;
        (pace.generation == set.metadata.generation).then_some(rest)
    }

    fn note_pass(&self, set: &ReplicaSet, pods: usize) {
        let mut paces = self.paces();
        let written = paces.get(&ObjectKey::of(set)).and_then(|p| p.written);
        let generation = set.metadata.generation;
        paces.insert(ObjectKey::of(set), Pace { generation, passed: Instant::now(), pods, written });
    }

    /// Writes the status, or says after which time it may be written.
    async fn write_status(
        &self,
        cx: &Context,
        set: &ReplicaSet,
        status: &ReplicaSetStatus,
    ) -> Result<Option<Duration>, ApiError> {
        let old = set.status.clone().unwrap_or_default();
        if old == *status {
            return Ok(None);
        }
        let key = ObjectKey::of(set);
        let last = self.paces().get(&key).and_then(|p| p.written);
        if let Some(rest) = last.and_then(|last| STATUS_PERIOD.checked_sub(last.elapsed()))
            && !rest.is_zero()
            && old.observed_generation == status.observed_generation
        {
            return Ok(Some(rest));
        }
        match cx.patch_status(set, &old, status).await {
            Err(e) if e.is_not_found() => return Ok(None),
            other => other?,
        };
        if let Some(pace) = self.paces().get_mut(&key) {
            pace.written = Some(Instant::now());
        }
        Ok(None)
    }
}

fn wanted(set: &ReplicaSet) -> usize {
    let replicas = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

async fn manage(cx: &Context, set: &ReplicaSet, active: &[Arc<Pod>]) -> Result<(), ApiError> {
    let want = wanted(set);
    if active.len() < want {
        create(cx, set, want - active.len()).await
    } else if active.len() > want {
        delete(cx, set, active, active.len() - want).await
    } else {
        Ok(())
    }
}

/// The pod that a ReplicaSet creates, as it is sent.
fn new_pod(set: &ReplicaSet) -> Result<Value, ApiError> {
    let template = set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    let mut pod = Pod { spec: template.spec, ..Pod::default() };
    if let Some(meta) = template.metadata {
        pod.metadata.labels = meta.labels;
        pod.metadata.annotations = meta.annotations;
        pod.metadata.finalizers = meta.finalizers;
    }
    // Upstream cuts the prefix where the server would have to.
    pod.metadata.generate_name = Some(format!("{}-", set.name()));
    pod.metadata.namespace = set.metadata.namespace.clone();
    pod.metadata.owner_references = Some(vec![owner::controller_ref(set)]);
    serde_json::to_value(&pod).map_err(ApiError::internal)
}

/// Creates in growing batches, so that a template that is refused is refused a few times and not thousands.
async fn create(cx: &Context, set: &ReplicaSet, count: usize) -> Result<(), ApiError> {
    let pod = new_pod(set)?;
    let api = cx.api::<Pod>(set.namespace().unwrap_or(""));
    let (mut left, mut batch) = (count, 1);
    while left > 0 {
        let now = batch.min(left);
        // Once a full window went well there is nothing more to learn: the rest runs through it without pause.
        let now = if batch >= IN_FLIGHT_MAX { left } else { now };
        let calls = (0..now).map(|_| {
            let request = api.request(Verb::Create, None).body(ContentType::Json, pod.clone());
            async { cx.client().send(request).await.map(|created| tell_created(cx, set, &created)) }
        });
        let results: Vec<_> = stream::iter(calls).buffer_unordered(IN_FLIGHT_MAX).collect().await;
        if let Some(error) = results.into_iter().find_map(Result::err) {
            return refused(cx, set, error);
        }
        left -= now;
        batch = (batch * 4).min(IN_FLIGHT_MAX);
    }
    Ok(())
}

fn tell_created(cx: &Context, set: &ReplicaSet, created: &ApiResponse) {
    let name = match &created.body {
        ResponseBody::Object(pod) => pod.header().name.as_str(),
        ResponseBody::Value(pod) => meta::name(pod),
        _ => return,
    };
    let note = format!("Created pod: {name}");
    cx.events().event(set, EventType::Normal, "SuccessfulCreate", "Creating", &note);
}

fn refused(cx: &Context, set: &ReplicaSet, error: ApiError) -> Result<(), ApiError> {
    let causes = error.status().details.iter().flat_map(|d| d.causes.iter().flatten());
    if causes.into_iter().any(|c| c.reason.as_deref() == Some("NamespaceTerminating")) {
        return Ok(());
    }
    if error.reason() != Reason::Timeout {
        let note = format!("Error creating: {error}");
        cx.events().event(set, EventType::Warning, "FailedCreate", "Creating", &note);
    }
    Err(error)
}

async fn delete(cx: &Context, set: &ReplicaSet, active: &[Arc<Pod>], surplus: usize) -> Result<(), ApiError> {
    let siblings = siblings(cx, set);
    let victims = rank::victims(active, &siblings, surplus, cx.now());
    let api = cx.api::<Pod>(set.namespace().unwrap_or(""));
    let calls = victims.into_iter().map(|pod| {
        let api = &api;
        async move {
            let options = DeleteOptions { uid: Some(pod.uid().to_owned()), ..DeleteOptions::default() };
            match api.delete(pod.name(), &options).await {
                Err(e) if e.is_not_found() => Ok(()),
                Ok(()) => {
                    let note = format!("Deleted pod: {}", pod.name());
                    cx.events().event(set, EventType::Normal, "SuccessfulDelete", "Deleting", &note);
                    Ok(())
                }
                other => other,
            }
        }
    });
    let results: Vec<_> = stream::iter(calls).buffer_unordered(IN_FLIGHT_MAX).collect().await;
    let error = results.into_iter().find_map(Result::err);
    if let Some(e) = &error {
        let note = format!("Error deleting: {e}");
        cx.events().event(set, EventType::Warning, "FailedDelete", "Deleting", &note);
    }
    error.map_or(Ok(()), Err)
}

/// The active pods of all ReplicaSets with the same controller: pods of one Deployment should not be left on one node.
fn siblings(cx: &Context, set: &ReplicaSet) -> Vec<Arc<Pod>> {
    let all = cx.informers().of::<Pod>();
    let own = owner::controller_of(&set.metadata);
    let sets = cx.informers().of::<ReplicaSet>();
    let related: Vec<Arc<ReplicaSet>> = match own {
        Some(reference) => children_of(&sets, &reference.uid),
        None => Vec::new(),
    };
    let uids = related.iter().map(|s| s.uid()).chain(own.is_none().then(|| set.uid()));
    uids.flat_map(|uid| children_of(&all, uid)).filter(|p| pods::is_active(p)).collect()
}

fn count(pods: impl Iterator<Item = bool>) -> Option<i32> {
    i32::try_from(pods.filter(|yes| *yes).count()).ok().filter(|n| *n > 0)
}

/// The status, and after which time it may change without an event.
fn status_of(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&ApiError>,
    cx: &Context,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let template =
        spec.and_then(|s| s.template.as_ref()?.metadata.as_ref()?.labels.clone()).unwrap_or_default();
    let labelled = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        template.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
    };
    let now = cx.now();
    let waits: Vec<Option<Duration>> = active.iter().map(|p| pods::available_in(p, min_ready, now)).collect();
    let old = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: i32::try_from(active.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: count(active.iter().map(|p| labelled(p))),
        ready_replicas: count(waits.iter().map(Option::is_some)),
        available_replicas: count(waits.iter().map(|w| *w == Some(Duration::ZERO))),
        terminating_replicas: i32::try_from(terminating)
            .ok()
            .filter(|n| *n > 0 || old.terminating_replicas.is_some()),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, &old, active.len(), failure, cx),
    };
    let next = waits.into_iter().flatten().filter(|w| !w.is_zero()).min();
    // Whole seconds of the condition's time make the pod available up to a second late, never early.
    (status, next.map(|wait| wait + Duration::from_millis(10)))
}

fn conditions(
    set: &ReplicaSet,
    old: &ReplicaSetStatus,
    active: usize,
    failure: Option<&ApiError>,
    cx: &Context,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut all = old.conditions.clone().unwrap_or_default();
    match failure {
        None => all.retain(|c| c.type_ != "ReplicaFailure"),
        Some(error) if !all.iter().any(|c| c.type_ == "ReplicaFailure") => {
            let reason = if active < wanted(set) { "FailedCreate" } else { "FailedDelete" };
            all.push(ReplicaSetCondition {
                type_: "ReplicaFailure".to_owned(),
                status: "True".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(error.message().to_owned()),
                last_transition_time: Some(cx.time()),
            });
        }
        Some(_) => {}
    }
    Some(all).filter(|all| !all.is_empty())
}
