//! The loop that gives pods their passes: one at a time for each pod, a bounded number at once, none while nothing happens.

use crate::agent::Inner;
use crate::hub::{NodeMailbox, PodNews};
use crate::observed::Observed;
use crate::statuses::version;
use crate::sync::{Next, pass};
use crate::worker::PodWorker;
use crate::{names, policy};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kubewright_core::ObjectMeta;
use kubewright_runtime::port::{ContainerFilter, Labels, PodSandboxFilter};
use rustc_hash::{FxHashMap, FxHashSet};
use smol_str::SmolStr;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two looks at all of the runtime when it tells of its changes, and when it does not.
const RELIST_QUIET: Duration = Duration::from_secs(10);
const RELIST_POLL: Duration = Duration::from_secs(1);
/// The least time between two looks, and how long a burst of changes is let gather.
const RELIST_MIN: Duration = Duration::from_millis(300);
const RELIST_GATHER: Duration = Duration::from_millis(20);

/// One pod's place in the loop.
struct Slot {
    worker: Arc<PodWorker>,
    /// Cancels the pass that runs now.
    running: Option<CancellationToken>,
    /// Wants another pass after the running one.
    again: bool,
    queued: bool,
    /// The runtime was looked at while a pass ran; what changed then is looked for again.
    overlooked: bool,
    wake: Option<Timestamp>,
}

struct Driver {
    a: Arc<Inner>,
    mailbox: Arc<NodeMailbox>,
    slots: FxHashMap<SmolStr, Slot>,
    queue: VecDeque<SmolStr>,
    passes: JoinSet<(SmolStr, Option<Next>)>,
    /// Passes to come at a time.
    alarms: BTreeSet<(Timestamp, SmolStr)>,
    relisted: Instant,
    relist_at: Instant,
}

/// Runs the pods of a node, for ever. Dropping the future ends the passes that run.
pub(crate) async fn drive(a: &Arc<Inner>) {
    let mailbox = a.hub.open(&a.name).await;
    let now = Instant::now();
    let mut d = Driver {
        a: a.clone(),
        mailbox,
        slots: FxHashMap::default(),
        queue: VecDeque::new(),
        passes: JoinSet::new(),
        alarms: BTreeSet::new(),
        relisted: now,
        relist_at: now,
    };
    let mut changes = a.runtime.changes();
    let quiet = if changes.is_some() { RELIST_QUIET } else { RELIST_POLL };
    d.read_news();
    loop {
        d.start_passes();
        let alarm = d.until_alarm();
        tokio::select! {
            () = d.mailbox.wait() => d.read_news(),
            () = a.dirty.wait() => {
                for uid in a.dirty.take() {
                    d.want(&uid);
                }
            }
            Some(done) = d.passes.join_next() => d.finished(done),
            Some(()) = async { match &mut changes { Some(c) => c.next().await, None => None } } => {
                d.relist_soon();
            }
            () = tokio::time::sleep_until(d.relist_at) => {
                d.relist().await;
                d.relist_at = Instant::now() + quiet;
            }
            () = tokio::time::sleep(alarm) => d.ring(),
        }
    }
}

impl Driver {
    /// Takes over what the API says.
    fn read_news(&mut self) {
        for news in self.mailbox.take() {
            match news {
                PodNews::Present(pod) => self.present(pod),
                PodNews::Gone(pod) => self.gone(&pod),
            }
        }
    }

    fn present(&mut self, pod: Arc<Pod>) {
        let uid = SmolStr::new(pod.metadata.uid.as_deref().unwrap_or(""));
        let Some(slot) = self.slots.get_mut(&uid) else {
            let worker = Arc::new(PodWorker::new(pod, false));
            self.add(worker);
            self.want(&uid);
            return;
        };
        let (wanted, cancel) = slot.worker.with(|s| {
            if version(&pod) < version(&s.pod) {
                return (false, false);
            }
            let wanted = s.gone || matters(&s.pod, &pod, s.reported.as_ref());
            // A deletion, or a shorter grace period, cuts short what is being done.
            let end =
                |p: &Pod| (p.metadata.deletion_timestamp.is_some(), p.metadata.deletion_grace_period_seconds);
            let cancel = end(&s.pod) != end(&pod);
            if version(&pod) >= s.reported_version {
                s.reported.clone_from(&pod.status);
                s.reported_version = version(&pod);
            }
            s.gone = false;
            s.pod = pod;
            (wanted, cancel)
        });
        if cancel && let Some(token) = &slot.running {
            token.cancel();
        }
        if wanted {
            self.want(&uid);
        }
    }

    fn gone(&mut self, pod: &Arc<Pod>) {
        let uid = SmolStr::new(pod.metadata.uid.as_deref().unwrap_or(""));
        let Some(slot) = self.slots.get_mut(&uid) else { return };
        let first = slot.worker.with(|s| {
            if version(pod) >= version(&s.pod) {
                s.pod = pod.clone();
            }
            !std::mem::replace(&mut s.gone, true)
        });
        if first && let Some(token) = &slot.running {
            token.cancel();
        }
        self.a.statuses.withdraw(&uid);
        self.want(&uid);
    }

    fn add(&mut self, worker: Arc<PodWorker>) {
        let uid = worker.uid.clone();
        self.a.workers.lock().insert(uid.clone(), worker.clone());
        self.slots.insert(
            uid,
            Slot { worker, running: None, again: false, queued: false, overlooked: false, wake: None },
        );
    }

    /// Asks for a pass of a pod.
    fn want(&mut self, uid: &SmolStr) {
        let Some(slot) = self.slots.get_mut(uid) else { return };
        if slot.running.is_some() {
            slot.again = true;
        } else if !slot.queued {
            slot.queued = true;
            self.queue.push_back(uid.clone());
        }
    }

    fn start_passes(&mut self) {
        while self.passes.len() < self.a.settings.passes_max {
            let Some(uid) = self.queue.pop_front() else { return };
            let Some(slot) = self.slots.get_mut(&uid) else { continue };
            slot.queued = false;
            if let Some(at) = slot.wake.take() {
                self.alarms.remove(&(at, uid.clone()));
            }
            let token = CancellationToken::new();
            slot.running = Some(token.clone());
            let (a, worker) = (self.a.clone(), slot.worker.clone());
            self.passes.spawn(async move {
                let next = tokio::select! {
                    biased;
                    () = token.cancelled() => {
                        worker.invalidate();
                        None
                    }
                    next = pass(&a, &worker) => Some(next),
                };
                (uid, next)
            });
        }
    }

    fn finished(&mut self, done: Result<(SmolStr, Option<Next>), tokio::task::JoinError>) {
        let (uid, next) = match done {
            Ok(done) => done,
            Err(e) => {
                // A pass that panicked: its slot can't be told from here, so every running one is looked at.
                tracing::error!(error = %e, "a pod's pass panicked");
                self.revive();
                return;
            }
        };
        let Some(slot) = self.slots.get_mut(&uid) else { return };
        slot.running = None;
        let again = std::mem::take(&mut slot.again) || next.is_none();
        if next.is_some_and(|n| n.forget) {
            self.slots.remove(&uid);
            self.a.workers.lock().remove(&uid);
            self.a.backoff.lock().retain(|(of, ..)| *of != uid);
            return;
        }
        if let Some(at) = next.and_then(|n| n.at) {
            slot.wake = Some(at);
            self.alarms.insert((at, uid.clone()));
        }
        let overlooked = std::mem::take(&mut slot.overlooked);
        if again {
            self.want(&uid);
        } else if overlooked {
            self.relist_soon();
        }
    }

    /// Frees the slots whose pass is gone without an answer: when none runs, all of them are free.
    fn revive(&mut self) {
        let soon =
            self.a.clock.now().checked_add(jiff::SignedDuration::from_secs(5)).unwrap_or(Timestamp::MAX);
        if !self.passes.is_empty() {
            for slot in self.slots.values() {
                if let Some(token) = &slot.running {
                    token.cancel();
                }
            }
        }
        for (uid, slot) in &mut self.slots {
            if slot.running.take().is_some() {
                slot.worker.invalidate();
                slot.wake = Some(soon);
                self.alarms.insert((soon, uid.clone()));
            }
        }
    }

    fn until_alarm(&self) -> Duration {
        let Some((at, _)) = self.alarms.first() else { return Duration::from_secs(3600) };
        Duration::try_from(at.duration_since(self.a.clock.now())).unwrap_or(Duration::ZERO)
    }

    fn ring(&mut self) {
        let now = self.a.clock.now();
        while let Some((at, uid)) = self.alarms.first().cloned() {
            if at > now {
                return;
            }
            self.alarms.pop_first();
            if let Some(slot) = self.slots.get_mut(&uid) {
                slot.wake = None;
            }
            self.want(&uid);
        }
    }

    fn relist_soon(&mut self) {
        let now = Instant::now();
        let soonest = (self.relisted + RELIST_MIN).max(now + RELIST_GATHER);
        self.relist_at = self.relist_at.min(soonest);
    }

    /// Looks at all of the runtime: pods whose part of it changed want a pass, and pods that the API does not know are ended.
    async fn relist(&mut self) {
        self.relisted = Instant::now();
        let sandboxes = self.a.runtime.list_pod_sandbox(PodSandboxFilter::default());
        let containers = self.a.runtime.list_containers(ContainerFilter::default());
        let (sandboxes, containers) = match futures::future::try_join(sandboxes, containers).await {
            Ok(lists) => lists,
            Err(e) => {
                tracing::debug!(error = %e, "the runtime does not answer");
                return;
            }
        };
        let mut seen: FxHashMap<SmolStr, (Fingerprint, Labels)> = FxHashMap::default();
        let uid_of = |labels: &Labels| labels.get(names::POD_UID).map(SmolStr::new);
        for s in sandboxes {
            let Some(uid) = uid_of(&s.labels) else { continue };
            seen.entry(uid).or_default().0.sandbox(&s);
            let entry = seen.entry(SmolStr::new(&s.labels[names::POD_UID])).or_default();
            entry.1 = s.labels;
        }
        for c in containers {
            let Some(uid) = uid_of(&c.labels) else { continue };
            let entry = seen.entry(uid).or_default();
            entry.0.container(&c);
            if entry.1.is_empty() {
                entry.1 = c.labels;
            }
        }
        self.compare(seen);
    }

    fn compare(&mut self, seen: FxHashMap<SmolStr, (Fingerprint, Labels)>) {
        let mut wanted: Vec<SmolStr> = Vec::new();
        for (uid, slot) in &mut self.slots {
            if slot.running.is_some() {
                slot.overlooked = true;
                continue;
            }
            let known = Fingerprint::of(&slot.worker.observed());
            let empty = Fingerprint::default();
            if *seen.get(uid).map_or(&empty, |(f, _)| f) != known {
                slot.worker.invalidate();
                wanted.push(uid.clone());
            }
        }
        for (uid, (_, labels)) in seen {
            if !self.slots.contains_key(&uid) {
                tracing::info!(uid = %uid, "a pod that the API does not know is ended");
                self.add(Arc::new(PodWorker::new(Arc::new(orphan(&uid, &labels)), true)));
                wanted.push(uid);
            }
        }
        for uid in wanted {
            self.want(&uid);
        }
    }
}

/// What of a pod's part of the runtime can change by itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fingerprint(FxHashSet<(String, u8)>);

impl Fingerprint {
    fn sandbox(&mut self, s: &kubewright_runtime::port::PodSandbox) {
        self.0.insert((s.id.clone(), s.state as u8));
    }

    fn container(&mut self, c: &kubewright_runtime::port::Container) {
        self.0.insert((c.id.clone(), 8 + c.state as u8));
    }

    fn of(observed: &Observed) -> Self {
        let mut fingerprint = Fingerprint::default();
        observed.sandboxes.iter().for_each(|s| fingerprint.sandbox(s));
        observed.containers.iter().for_each(|c| fingerprint.container(c));
        fingerprint
    }
}

/// As much of a pod as its labels tell, enough to end it.
fn orphan(uid: &str, labels: &Labels) -> Pod {
    let text = |key: &str| labels.get(key).cloned();
    Pod {
        metadata: ObjectMeta {
            uid: Some(uid.to_owned()),
            name: text(names::POD_NAME),
            namespace: text(names::POD_NAMESPACE),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { termination_grace_period_seconds: Some(1), ..PodSpec::default() }),
        ..Pod::default()
    }
}

/// Whether a change of the object is of interest: all but the echo of this agent's own status.
fn matters(old: &Pod, new: &Pod, reported: Option<&k8s_openapi::api::core::v1::PodStatus>) -> bool {
    let (o, n) = (&old.metadata, &new.metadata);
    o.generation != n.generation
        || o.deletion_timestamp != n.deletion_timestamp
        || o.deletion_grace_period_seconds != n.deletion_grace_period_seconds
        || o.labels != n.labels
        || o.annotations != n.annotations
        || old.spec != new.spec
        || new.status.as_ref() != reported
        || (policy::is_terminal(new) && !policy::is_terminal(old))
}
