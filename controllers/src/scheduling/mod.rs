//! Scheduling: feeds the pure scheduler with what the informers see, and carries out what it decides.
//!
//! One task owns the scheduler, so it needs no locks; bindings run beside it, many at once, so that the store can commit them together.

mod extenders;
mod objects;
mod report;
mod watch;

use extenders::Extenders;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kubewright_core::{ApiError, ApiRequest, GroupVersionResource, Reason, Verb};
use kubewright_reconcile::{Change, Context, Controller, Subscription};
use kubewright_sched::{Consultation, Decision, Diagnosis, PodInfo, PodKey, Scheduler, SteadyTime};
use objects::{Fact, Objects};
use smol_str::SmolStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use watch::Watch;

/// How many bindings and reports are under way at once; decisions wait when there are more.
const CALLS_MAX: usize = 512;
/// How long one binding may take before the pod is tried again.
const BIND_TIMEOUT: Duration = Duration::from_secs(30);
/// How many changes are taken in before the next decisions, so that neither starves the other.
const CHANGES_MAX: usize = 2048;
/// The scheduler is told of time at least this often; it moves pods that waited too long.
const TICK: Duration = Duration::from_secs(10);

/// A call of a plugin that lasts for longer is given up.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// The scheduling controller over a scheduler, made anew at each start, and where a plugin that is not one of this project's does not come
/// back for half a minute.
pub fn scheduling(make: impl Fn() -> Scheduler + Send + Sync + 'static) -> Controller {
    scheduling_within(CALL_LIMIT, make)
}

/// The same with another time after which a plugin is given up on. The pod that it was asked about is left alone until it changes, and
/// its status says so.
pub fn scheduling_within(
    limit: Duration,
    make: impl Fn() -> Scheduler + Send + Sync + 'static,
) -> Controller {
    let make = Arc::new(make);
    Controller::from_fn("scheduler", move |cx| {
        let make = make.clone();
        async move { watch::run(cx, move || make(), limit).await }
    })
}

/// A node with the pods that have to go from it.
type Nomination = (SmolStr, Vec<PodKey>);

/// The end of a call.
enum Done {
    Bound(Arc<PodInfo>, SmolStr, Result<(), ApiError>),
    /// PreBind's requests were answered.
    Prepared(PodKey, Result<(), ApiError>),
    /// The extenders have answered about a pod.
    Consulted(PodKey, Result<Consultation, String>),
    /// They have answered where room may be made for it.
    Preempting(Arc<PodInfo>, Diagnosis, Option<Nomination>),
    /// Why a pod was not scheduled is written, and its victims, if any, are deleted or not.
    Reported(PodKey, bool),
    /// Nothing more is to be done.
    Told,
}

struct Loop {
    cx: Context,
    scheduler: Scheduler,
    nodes: Subscription<Node>,
    pods: Subscription<Pod>,
    objects: Objects,
    extenders: Arc<Extenders>,
    calls: JoinSet<Done>,
    /// The clock may be set back; the scheduler's time never goes back.
    time: SteadyTime,
    /// Told of each call where somebody watches.
    watch: Option<Arc<Watch>>,
    /// Pods that are left alone until they change.
    held: Vec<Arc<PodInfo>>,
}

impl Loop {
    fn new(cx: Context, scheduler: Scheduler, watch: Option<Arc<Watch>>, held: Vec<Arc<PodInfo>>) -> Self {
        let nodes = cx.informers().of::<Node>().subscribe();
        let pods = cx.informers().of::<Pod>().subscribe();
        let objects = Objects::follow(&cx);
        let extenders = Arc::new(Extenders::new(scheduler.extenders()));
        let (calls, time) = (JoinSet::new(), SteadyTime::default());
        Loop { cx, scheduler, nodes, pods, objects, extenders, calls, time, watch, held }
    }

    async fn run(mut self) {
        let cancel = self.cx.cancel().clone();
        let informers = self.cx.informers().clone();
        // Without all nodes every pod would look unschedulable at first.
        let (nodes, pods) = (informers.of::<Node>(), informers.of::<Pod>());
        let synced = async { tokio::join!(nodes.synced(), pods.synced(), self.objects.first()).2 };
        let Some(facts) = cancel.run_until_cancelled(synced).await else { return };
        facts.into_iter().for_each(|fact| self.fact(fact));
        while !cancel.is_cancelled() {
            if !self.goes_on() {
                return;
            }
            self.take_in();
            self.decide();
            if !self.rests() {
                return;
            }
            let wake = self.until_wake();
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(change) = self.nodes.next() => { self.goes_on(); self.node(change) }
                Some(change) = self.pods.next() => { self.goes_on(); self.pod(change) }
                fact = self.objects.next() => { self.goes_on(); self.fact(fact) }
                Some(done) = self.calls.join_next() => { self.goes_on(); self.done(done.ok()) }
                () = tokio::time::sleep(wake) => {}
            }
        }
    }

    /// Calls into plugins begin; whether the ones before came back in time.
    fn goes_on(&self) -> bool {
        self.watch.as_ref().is_none_or(|w| w.begin())
    }

    /// They are over; whether in time.
    fn rests(&self) -> bool {
        self.watch.as_ref().is_none_or(|w| w.end())
    }

    fn now(&mut self) -> Timestamp {
        self.time.of(self.cx.now())
    }

    /// Takes in what is there, nodes first.
    fn take_in(&mut self) {
        for _ in 0..CHANGES_MAX {
            if let Some(change) = self.nodes.try_next() {
                self.node(change);
            } else if let Some(fact) = self.objects.try_next() {
                self.fact(fact);
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
        let now = self.now();
        match change {
            Change::Applied { object, .. } => self.scheduler.apply_node(object, now),
            Change::Deleted(node) => {
                self.scheduler.remove_node(node.metadata.name.as_deref().unwrap_or(""), now);
            }
        }
    }

    fn pod(&mut self, change: Change<Pod>) {
        let now = self.now();
        match change {
            Change::Applied { object, .. } if self.is_held(&object) => {}
            Change::Applied { object, .. } => self.scheduler.apply_pod(object, now),
            Change::Deleted(pod) => self.scheduler.remove_pod(&PodKey::of(&pod), now),
        }
    }

    /// Whether a plugin did not come back when it was asked about the pod as it is now.
    fn is_held(&self, pod: &Pod) -> bool {
        let same = |held: &&Arc<PodInfo>| {
            let known = held.pod.as_ref();
            pod.metadata.uid.as_deref().unwrap_or("") == held.uid
                && known.is_some_and(|k| k.spec == pod.spec && k.metadata.labels == pod.metadata.labels)
        };
        self.held.iter().find(same).is_some()
    }

    fn fact(&mut self, fact: Fact) {
        let now = self.now();
        match fact {
            Fact::Applied(object) => self.scheduler.apply_object(&object, now),
            Fact::Deleted(object) => self.scheduler.remove_object(&object, now),
            Fact::Seen => {}
        }
    }

    fn done(&mut self, done: Option<Done>) {
        match done {
            Some(Done::Bound(pod, node, Ok(()))) => {
                self.scheduler.bound(&pod.key);
                report::scheduled(&self.cx, &pod, &node);
            }
            Some(Done::Bound(pod, _, Err(e))) => self.failed(&pod.key, &e),
            Some(Done::Prepared(key, Ok(()))) => {
                let now = self.now();
                let decision = self.scheduler.prepared(&key, now);
                decision.into_iter().for_each(|d| self.carry_out(d));
            }
            Some(Done::Prepared(key, Err(e))) => self.failed(&key, &e),
            Some(Done::Consulted(key, answer)) => {
                let now = self.now();
                let decision = self.scheduler.consulted(&key, answer, now);
                decision.into_iter().for_each(|d| self.carry_out(d));
            }
            Some(Done::Preempting(pod, diagnosis, choice)) => {
                let told = choice.as_ref().map(|(node, victims)| (node.as_str(), victims.clone()));
                self.scheduler.renominate(&pod.key, told);
                self.report(pod, diagnosis, choice);
            }
            Some(Done::Reported(key, false)) => self.scheduler.preemption_failed(&key),
            Some(Done::Reported(_, true) | Done::Told) | None => {}
        }
    }

    fn failed(&mut self, key: &PodKey, error: &ApiError) {
        // Deleted, or bound by somebody else: the watch tells the rest.
        if matches!(error.reason(), Reason::NotFound | Reason::Conflict) {
            tracing::debug!(pod = %key, %error, "the binding came too late");
        } else {
            tracing::warn!(pod = %key, %error, "binding failed; it is tried again");
        }
        let now = self.now();
        self.scheduler.failed(key, now);
    }

    fn decide(&mut self) {
        let now = self.now();
        for decision in self.scheduler.advance(now) {
            self.carry_out(decision);
        }
        loop {
            for decision in self.scheduler.take_prepared(now) {
                self.carry_out(decision);
            }
            if self.calls.len() >= CALLS_MAX {
                return;
            }
            let decision = self.scheduler.schedule_one(now);
            // What is decided too late was decided by somebody else meanwhile.
            match decision {
                Some(decision) if self.goes_on() => self.carry_out(decision),
                _ => return,
            }
        }
    }

    fn carry_out(&mut self, decision: Decision) {
        match decision {
            Decision::Bind { pod, node, requests, .. } => {
                let send = bind(self.cx.clone(), self.extenders.clone(), pod.clone(), node.clone(), requests);
                self.calls.spawn(async move { Done::Bound(pod, node, send.await) });
            }
            Decision::Prepare { pod, requests, .. } => {
                let send = send(self.cx.clone(), requests);
                self.calls.spawn(async move { Done::Prepared(pod.key.clone(), send.await) });
            }
            Decision::Wait { .. } => {}
            Decision::Consult { pod, extenders, nodes } => self.consult(pod, extenders, nodes),
            Decision::Unschedulable { pod, diagnosis, nominated, displaced, requests } => {
                if !requests.is_empty() {
                    let send = send(self.cx.clone(), requests);
                    let key = pod.key.clone();
                    self.calls.spawn(async move {
                        if let Err(e) = send.await {
                            tracing::debug!(pod = %key, error = %e, "what might help the pod was not done");
                        }
                        Done::Told
                    });
                }
                if !displaced.is_empty() {
                    let cx = self.cx.clone();
                    self.calls.spawn(async move {
                        report::displaced(&cx, &displaced).await;
                        Done::Told
                    });
                }
                match nominated {
                    Some(_) if self.extenders.preempt(&pod) => self.ask_for_victims(pod, diagnosis),
                    nominated => self.report(pod, diagnosis, nominated),
                }
            }
        }
    }

    fn consult(&mut self, pod: Arc<PodInfo>, asked: Vec<usize>, nodes: Vec<SmolStr>) {
        let all = self.extenders.clone();
        let table = self.scheduler.nodes();
        let whole: Vec<Arc<Node>> = match all.want_whole_nodes(&asked) {
            true => nodes.iter().filter_map(|n| table.node(table.find(n)?).cloned()).collect(),
            false => Vec::new(),
        };
        self.calls.spawn(async move {
            let answer = all.consult(&asked, &pod, &nodes, &whole).await;
            Done::Consulted(pod.key.clone(), answer)
        });
    }

    /// Has the extenders say where room may be made, before anybody has to go.
    fn ask_for_victims(&mut self, pod: Arc<PodInfo>, diagnosis: Diagnosis) {
        let (all, pods) = (self.extenders.clone(), self.cx.informers().of::<Pod>());
        let candidates = diagnosis.considered.as_ref().map(|c| c.candidates.clone()).unwrap_or_default();
        self.calls.spawn(async move {
            let choice = match all.choose_victims(&pod, candidates, &pods).await {
                Ok(left) => left.into_iter().next().map(|c| (c.node, c.victims)),
                Err(error) => {
                    tracing::warn!(pod = %pod.key, %error, "preemption: an extender failed; nobody is evicted");
                    None
                }
            };
            Done::Preempting(pod, diagnosis, choice)
        });
    }

    fn report(&mut self, pod: Arc<PodInfo>, diagnosis: Diagnosis, nominated: Option<Nomination>) {
        let cx = self.cx.clone();
        self.calls.spawn(async move {
            let evicted = report::unschedulable(&cx, &pod, &diagnosis, nominated).await;
            Done::Reported(pod.key.clone(), evicted)
        });
    }

    fn until_wake(&mut self) -> Duration {
        let now = self.now();
        let due = self.scheduler.next_wake().map(|at| at.duration_since(now));
        let due = due.map(|d| Duration::try_from(d).unwrap_or(Duration::ZERO));
        due.unwrap_or(TICK).min(TICK).max(Duration::from_millis(1))
    }
}

/// Sends a binding and what comes before it; an extender that binds the pod does the last step instead.
async fn bind(
    cx: Context,
    extenders: Arc<Extenders>,
    pod: Arc<PodInfo>,
    node: SmolStr,
    mut requests: Vec<ApiRequest>,
) -> Result<(), ApiError> {
    if !extenders.bind_instead(&pod) {
        return send(cx, requests).await;
    }
    let binding = requests.pop();
    send(cx.clone(), requests).await?;
    if !extenders.bind(&pod, &node).await? {
        return send(cx, binding.into_iter().collect()).await;
    }
    Ok(())
}

/// Sends requests one after the other, within a bounded time.
async fn send(cx: Context, requests: Vec<ApiRequest>) -> Result<(), ApiError> {
    let all = async {
        for request in requests {
            cx.client().send(request).await?;
        }
        Ok(())
    };
    let late = || ApiError::new(Reason::Timeout, "the binding took too long");
    tokio::time::timeout(BIND_TIMEOUT, all).await.unwrap_or_else(|_| Err(late()))
}

fn pod_request(verb: Verb, pod: &PodKey) -> ApiRequest {
    let pods = GroupVersionResource::new("", "v1", "pods");
    ApiRequest::resource(verb, pods, Some(&pod.namespace), Some(&pod.name))
}
