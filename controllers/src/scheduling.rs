//! Scheduling: feeds the pure scheduler with what the informers see, and carries out what it decides.
//!
//! One task owns the scheduler, so it needs no locks; bindings run beside it, many at once, so that the store can commit them together.

use k8s_openapi::api::core::v1::{Node, Pod};
use kubewright_core::{ApiError, ApiRequest, ContentType, GroupVersionResource, Reason, SharedClock, Verb};
use kubewright_reconcile::client::Client;
use kubewright_reconcile::{Change, Context, Controller, Subscription};
use kubewright_sched::{Decision, Diagnosis, PodInfo, PodKey, Scheduler};
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How many bindings and reports are under way at once; decisions wait when there are more.
const CALLS_MAX: usize = 512;
/// How long one binding may take before the pod is tried again.
const BIND_TIMEOUT: Duration = Duration::from_secs(30);
/// How many changes are taken in before the next decisions, so that neither starves the other.
const CHANGES_MAX: usize = 2048;
/// The scheduler is told of time at least this often; it moves pods that waited too long.
const TICK: Duration = Duration::from_secs(10);

/// The scheduling controller over a scheduler, made anew at each start.
pub fn scheduling(make: impl Fn() -> Scheduler + Send + Sync + 'static) -> Controller {
    let make = Arc::new(make);
    Controller::from_fn("scheduler", move |cx| {
        let scheduler = make();
        async move { Loop::new(cx, scheduler).run().await }
    })
}

/// The end of a call.
enum Done {
    Bound(PodKey, Result<(), ApiError>),
    Reported,
}

struct Loop {
    cx: Context,
    scheduler: Scheduler,
    nodes: Subscription<Node>,
    pods: Subscription<Pod>,
    calls: JoinSet<Done>,
}

impl Loop {
    fn new(cx: Context, scheduler: Scheduler) -> Self {
        let nodes = cx.informers().of::<Node>().subscribe();
        let pods = cx.informers().of::<Pod>().subscribe();
        Loop { cx, scheduler, nodes, pods, calls: JoinSet::new() }
    }

    async fn run(mut self) {
        let cancel = self.cx.cancel().clone();
        let informers = self.cx.informers().clone();
        // Without all nodes every pod would look unschedulable at first.
        let (nodes, pods) = (informers.of::<Node>(), informers.of::<Pod>());
        let synced = async { tokio::join!(nodes.synced(), pods.synced()) };
        if cancel.run_until_cancelled(synced).await.is_none() {
            return;
        }
        while !cancel.is_cancelled() {
            self.take_in();
            self.decide();
            let wake = self.until_wake();
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(change) = self.nodes.next() => self.node(change),
                Some(change) = self.pods.next() => self.pod(change),
                Some(done) = self.calls.join_next() => self.done(done.ok()),
                () = tokio::time::sleep(wake) => {}
            }
        }
    }

    /// Takes in what is there, nodes first.
    fn take_in(&mut self) {
        for _ in 0..CHANGES_MAX {
            if let Some(change) = self.nodes.try_next() {
                self.node(change);
            } else if let Some(change) = self.pods.try_next() {
                self.pod(change);
            } else if let Some(done) = self.calls.try_join_next() {
                self.done(done.ok());
            } else {
                return;
            }
        }
    }

    fn node(&mut self, change: Change<Node>) {
        let now = self.cx.now();
        match change {
            Change::Applied { object, .. } => self.scheduler.apply_node(object, now),
            Change::Deleted(node) => {
                self.scheduler.remove_node(node.metadata.name.as_deref().unwrap_or(""), now);
            }
        }
    }

    fn pod(&mut self, change: Change<Pod>) {
        let now = self.cx.now();
        match change {
            Change::Applied { object, .. } => self.scheduler.apply_pod(object, now),
            Change::Deleted(pod) => self.scheduler.remove_pod(&PodKey::of(&pod), now),
        }
    }

    fn done(&mut self, done: Option<Done>) {
        let Some(Done::Bound(key, result)) = done else { return };
        match result {
            Ok(()) => self.scheduler.bound(&key),
            // Deleted, or bound by somebody else: the watch tells the rest.
            Err(e) if matches!(e.reason(), Reason::NotFound | Reason::Conflict) => {
                tracing::debug!(pod = %key, error = %e, "the binding came too late");
                self.scheduler.failed(&key, self.cx.now());
            }
            Err(e) => {
                tracing::warn!(pod = %key, error = %e, "binding failed; it is tried again");
                self.scheduler.failed(&key, self.cx.now());
            }
        }
    }

    fn decide(&mut self) {
        let now = self.cx.now();
        self.scheduler.advance(now);
        while self.calls.len() < CALLS_MAX {
            match self.scheduler.schedule_one(now) {
                None => return,
                Some(Decision::Bind { pod, node, requests, .. }) => self.bind(pod, node, requests),
                Some(Decision::Wait { .. }) => {}
                Some(Decision::Unschedulable { pod, diagnosis, nominated }) => {
                    self.report(pod, &diagnosis, nominated);
                }
            }
        }
    }

    fn until_wake(&self) -> Duration {
        let due = self.scheduler.next_wake().map(|at| at.duration_since(self.cx.now()));
        let due = due.map(|d| Duration::try_from(d).unwrap_or(Duration::ZERO));
        due.unwrap_or(TICK).min(TICK).max(Duration::from_millis(1))
    }

    fn bind(&mut self, pod: Arc<PodInfo>, node: SmolStr, requests: Vec<ApiRequest>) {
        let cx = self.cx.clone();
        self.calls.spawn(async move {
            let send = async {
                for request in requests {
                    cx.client().send(request).await?;
                }
                Ok(())
            };
            let late = || ApiError::new(Reason::Timeout, "the binding took too long");
            let result = tokio::time::timeout(BIND_TIMEOUT, send).await.unwrap_or_else(|_| Err(late()));
            if result.is_ok() {
                tracing::debug!(pod = %pod.key, %node, "bound");
            }
            Done::Bound(pod.key.clone(), result)
        });
    }

    /// Writes why a pod was not scheduled into its status, where it does not stand there yet, and evicts what stands in its way.
    fn report(
        &mut self,
        pod: Arc<PodInfo>,
        diagnosis: &Diagnosis,
        nominated: Option<(SmolStr, Vec<PodKey>)>,
    ) {
        let message = diagnosis.to_string();
        let (client, clock) = (self.cx.client().clone(), self.cx.shared_clock());
        self.calls.spawn(async move {
            if let Err(e) = write_condition(&client, &clock, &pod, &message, nominated.as_ref()).await {
                tracing::debug!(pod = %pod.key, error = %e, "the pod's condition was not written");
            }
            for victim in nominated.iter().flat_map(|(_, victims)| victims) {
                let request = pod_request(Verb::Delete, victim);
                if let Err(e) = client.send(request).await {
                    tracing::warn!(pod = %victim, error = %e, "preemption: the victim was not deleted");
                }
            }
            Done::Reported
        });
    }
}

fn pod_request(verb: Verb, pod: &PodKey) -> ApiRequest {
    let pods = GroupVersionResource::new("", "v1", "pods");
    ApiRequest::resource(verb, pods, Some(&pod.namespace), Some(&pod.name))
}

async fn write_condition(
    client: &Client,
    clock: &SharedClock,
    pod: &PodInfo,
    message: &str,
    nominated: Option<&(SmolStr, Vec<PodKey>)>,
) -> Result<(), ApiError> {
    let status = pod.pod.as_ref().and_then(|p| p.status.as_ref());
    let known = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let same = known
        .into_iter()
        .any(|c| c.type_ == "PodScheduled" && c.status == "False" && c.message.as_deref() == Some(message));
    let nominee = nominated.map(|(node, _)| node.as_str());
    if same && nominee == status.and_then(|s| s.nominated_node_name.as_deref()) {
        return Ok(());
    }
    let mut patch = json!({"status": {"conditions": [{
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastProbeTime": Value::Null,
        "lastTransitionTime": seconds(clock.now()),
    }]}});
    if let Some(node) = nominee {
        patch["status"]["nominatedNodeName"] = json!(node);
    }
    let request = pod_request(Verb::Patch, &pod.key).subresource("status");
    client.send(request.body(ContentType::StrategicMergePatch, patch)).await.map(drop)
}

/// A time as `metav1.Time` writes it.
fn seconds(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
