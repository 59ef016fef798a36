//! One pass over one pod: from the state of the object and of the runtime to what should be.

use crate::actions::{self, Actions};
use crate::agent::Inner;
use crate::events::{NORMAL, WARNING};
use crate::observe::observe;
use crate::observed::Observed;
use crate::probe::{Outcome, ProbeKind, ProbeTarget, Report, watch_probe};
use crate::start::{PodContext, start};
use crate::worker::{PodWorker, Watched};
use crate::{admission, cri, ephemeral, policy, terminate};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use kubewright_core::ApiError;
use kubewright_reconcile::client::{Api, DeleteOptions};
use kubewright_runtime::port::{Container as Instance, ContainerState};
use kubewright_storage::PodVolumes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a pass leaves to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Next {
    /// Another pass at this time, even if nothing happens.
    pub(crate) at: Option<Timestamp>,
    /// The pod is over and gone: forget it.
    pub(crate) forget: bool,
}

impl Next {
    fn by(&mut self, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.at = Some(self.at.map_or(at, |old| old.min(at)));
        }
    }
}

/// How often a pass decides anew within one run; more is left to the next one.
const ROUNDS_MAX: usize = 32;
/// How often volumes that follow objects are brought up to date.
const REFRESH: SignedDuration = SignedDuration::from_secs(60);
/// How many instances of a container stay: the present one, and the one before for `logs --previous`.
const INSTANCES_MAX: usize = 2;

/// Runs one pass.
pub(crate) async fn pass(a: &Arc<Inner>, w: &Arc<PodWorker>) -> Next {
    let ending = w.with(|s| {
        s.ending
            || s.gone
            || s.failed.is_some()
            || s.pod.metadata.deletion_timestamp.is_some()
            || policy::is_terminal(&s.pod)
    });
    let result = if ending { end(a, w).await } else { sync(a, w).await };
    result.unwrap_or_else(|e| {
        tracing::debug!(pod = w.name, error = %e, "the runtime failed; the pod is tried again");
        w.invalidate();
        Next { at: Some(retry(a, w)), forget: false }
    })
}

/// When to try again after a failure: half a second, doubling up to half a minute.
fn retry(a: &Inner, w: &PodWorker) -> Timestamp {
    let failures = w.with(|s| {
        s.failures = s.failures.saturating_add(1);
        s.failures
    });
    let wait = SignedDuration::from_millis(500 << failures.min(7).saturating_sub(1))
        .min(SignedDuration::from_secs(30));
    a.clock.now().checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// Ends a pod, gives back what it had, and takes the object away where it is to be deleted.
async fn end(a: &Arc<Inner>, w: &Arc<PodWorker>) -> Result<Next, kubewright_runtime::Error> {
    if !w.with(|s| s.ended) && !terminate::end_pod(a, w).await? {
        return Ok(Next { at: Some(retry(a, w)), forget: false });
    }
    let mut next = Next::default();
    if !w.with(|s| s.cleaned) {
        if let Err(e) = a.volumes.unmount_pod(&w.uid).await {
            tracing::warn!(pod = w.name, error = %e, "unmounting failed; it is tried again");
            next.at = Some(retry(a, w));
            return Ok(next);
        }
        w.with(|s| s.cleaned = true);
    }
    a.report(w, false);
    let (gone, deleting) = w.with(|s| (s.gone, s.pod.metadata.deletion_timestamp.is_some()));
    if !gone && !deleting {
        return Ok(next);
    }
    remove_from_runtime(a, w).await?;
    if !gone && let Err(e) = delete_object(a, w).await {
        tracing::debug!(pod = w.name, error = %e, "the pod's object stays for now");
        next.at = Some(retry(a, w));
        return Ok(next);
    }
    a.hub.source().forget_pod(&w.uid);
    a.remove_logs(&w.pod()).await;
    next.forget = true;
    Ok(next)
}

async fn remove_from_runtime(a: &Inner, w: &PodWorker) -> Result<(), kubewright_runtime::Error> {
    let observed = observe(a, w).await?;
    for sandbox in &observed.sandboxes {
        a.runtime.remove_pod_sandbox(&sandbox.id).await?;
    }
    let orphans =
        observed.containers.iter().filter(|c| observed.sandboxes.iter().all(|s| s.id != c.sandbox_id));
    for container in orphans {
        a.runtime.remove_container(&container.id).await?;
    }
    Ok(())
}

/// The final status, then the object's end. Only this very pod is meant, never a successor of its name.
async fn delete_object(a: &Inner, w: &Arc<PodWorker>) -> Result<(), ApiError> {
    a.statuses.flush(a, w).await?;
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        uid: Some(w.uid.to_string()),
        ..DeleteOptions::default()
    };
    match Api::<Pod>::namespaced(a.client.clone(), &w.namespace).delete(&w.name, &options).await {
        Err(e) if !e.is_not_found() && !e.is_conflict() => Err(e),
        _ => Ok(()),
    }
}

/// Refuses or ends a pod for a reason of the node's.
fn fail(a: &Inner, w: &Arc<PodWorker>, reason: &str, message: String) -> Next {
    w.with(|s| s.failed = Some((reason.to_owned(), message)));
    a.report(w, false);
    Next { at: Some(a.clock.now()), forget: false }
}

async fn sync(a: &Arc<Inner>, w: &Arc<PodWorker>) -> Result<Next, kubewright_runtime::Error> {
    let pod = w.pod();
    let mut next = Next::default();
    if !w.with(|s| s.admitted) {
        let started = pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
        if !started && let Err(refusal) = admission::admit(a, &pod) {
            a.events.pod(&pod, WARNING, refusal.event, refusal.message.clone());
            return Ok(fail(a, w, &refusal.reason, refusal.message));
        }
        w.with(|s| s.admitted = true);
        if !started {
            // Told at once only if the rest takes a while. What was told of a pod before an agent's restart holds until the runtime was asked.
            a.report(w, true);
        }
    }
    match deadline(&pod, a.clock.now()) {
        Some(at) if at <= a.clock.now() => {
            let message = "Pod was active on the node longer than the specified deadline";
            a.events.pod(&pod, NORMAL, "DeadlineExceeded", message.to_owned());
            return Ok(fail(a, w, "DeadlineExceeded", message.to_owned()));
        }
        at => next.by(at),
    }
    let Some(volumes) = mount(a, w, &pod, &mut next).await else {
        a.report(w, false);
        return Ok(next);
    };
    for _ in 0..ROUNDS_MAX {
        let observed = match w.with(|s| s.fresh.then(|| s.observed.clone())) {
            Some(observed) => observed,
            None => observe(a, w).await?,
        };
        watch_probes(a, w, &pod, &observed);
        let actions = w.with(|s| actions::compute(&s.pod, &s.observed, &s.probes));
        if actions.kill_pod && !actions.create_sandbox {
            w.with(|s| s.ending = true);
            next.by(Some(a.clock.now()));
            break;
        }
        if !carry_out(a, w, &pod, &volumes, &observed, actions, &mut next).await? {
            break;
        }
    }
    collect_garbage(a, w).await;
    w.with(|s| s.failures = 0);
    a.report(w, false);
    Ok(next)
}

/// When `activeDeadlineSeconds` is over.
fn deadline(pod: &Pod, now: Timestamp) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let start = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(now, |t| t.0);
    start.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// The pod's volumes, mounted and up to date; `None` where they can't be yet.
async fn mount(a: &Inner, w: &PodWorker, pod: &Pod, next: &mut Next) -> Option<PodVolumes> {
    let now = a.clock.now();
    let follows = a.volumes.follows_source(pod);
    let (known, since) = w.with(|s| (s.volumes.clone(), s.volumes_at));
    let due = since.checked_add(REFRESH).unwrap_or(Timestamp::MAX);
    if let Some(known) = known
        && (!follows || due > now)
    {
        next.by(follows.then_some(due));
        return Some(known);
    }
    let facts = a.facts(w.observed().ips.clone());
    match a.volumes.mount_pod(pod, &**a.hub.source(), &facts).await {
        Ok(volumes) => {
            w.with(|s| {
                s.volumes = Some(volumes.clone());
                s.volumes_at = now;
            });
            next.by(follows.then(|| now.checked_add(REFRESH).unwrap_or(Timestamp::MAX)));
            Some(volumes)
        }
        Err(e) => {
            a.events.pod(pod, WARNING, "FailedMount", e.to_string());
            next.by(Some(retry(a, w)));
            // Volumes that were mounted before serve on; only a new pod waits.
            w.with(|s| s.volumes.clone())
        }
    }
}

/// Does what was decided. Gives whether something was done, so that it is worth deciding again.
async fn carry_out(
    a: &Arc<Inner>,
    w: &Arc<PodWorker>,
    pod: &Pod,
    volumes: &PodVolumes,
    observed: &Observed,
    actions: Actions,
    next: &mut Next,
) -> Result<bool, kubewright_runtime::Error> {
    if actions.kill_pod {
        terminate::kill_pod(a, w, pod, observed, None).await?;
        w.invalidate();
    }
    let kills = actions
        .kill
        .iter()
        .map(|k| terminate::kill_container(a, w, pod, &k.id, &k.name, k.message.clone(), k.why, None));
    futures::future::join_all(kills).await;
    let log_dir = a.log_dir(pod);
    let config = cri::sandbox_config(pod, actions.attempt, log_dir, &a.settings.dns);
    let mut done = !actions.kill.is_empty();
    // What was just ended counts for the back-off of its successor.
    let mut observed = if done { observe(a, w).await? } else { Arc::new(observed.clone()) };
    if actions.create_sandbox {
        let handler = a.runtime_handler(pod);
        if let Err(e) = a.runtime.run_pod_sandbox(&config, &handler).await {
            let message = format!("Failed to create pod sandbox: {e}");
            a.events.pod(pod, WARNING, "FailedCreatePodSandBox", message);
            next.by(Some(retry(a, w)));
            return Ok(false);
        }
        observed = observe(a, w).await?;
        done = true;
    }
    let Some(sandbox) = observed.ready_sandbox() else {
        next.by(Some(retry(a, w)));
        return Ok(false);
    };
    let facts = a.facts(observed.ips.clone());
    let cx = PodContext { pod, sandbox_id: &sandbox.id, sandbox: &config, volumes, facts: &facts };
    let spec = policy::spec(pod);
    let inits = spec.init_containers.as_deref().unwrap_or(&[]);
    let ephemeral = ephemeral::containers(&spec);
    let chosen = actions.start_ephemeral.iter().filter_map(|i| ephemeral.get(*i));
    let chosen = chosen.chain(actions.start_init.iter().filter_map(|i| inits.get(*i)));
    for container in chosen.chain(actions.start.iter().filter_map(|i| spec.containers.get(*i))) {
        match start(a, w, &cx, container).await {
            Ok(()) => done = true,
            Err(at) => next.by(at),
        }
    }
    Ok(done)
}

/// Starts the probes of instances that run, and ends those of instances that do not.
fn watch_probes(a: &Arc<Inner>, w: &Arc<PodWorker>, pod: &Pod, observed: &Observed) {
    let spec = policy::spec(pod);
    let sidecars = spec.init_containers.iter().flatten().filter(|c| policy::is_sidecar(c));
    for container in spec.containers.iter().chain(sidecars) {
        let Some(c) = observed.newest(&container.name).filter(|c| c.state == ContainerState::Running) else {
            continue;
        };
        let any = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness]
            .iter()
            .any(|k| k.of(container).is_some());
        if !any || w.with(|s| s.watched.contains_key(&c.id)) {
            continue;
        }
        if a.settings.simulated {
            // In a simulation nothing listens and nothing runs: what started is well.
            w.with(|s| {
                let good = crate::probe::ContainerProbes {
                    startup: Some(true),
                    liveness: Some(true),
                    readiness: Some(true),
                };
                s.probes.set(&c.id, good);
            });
            continue;
        }
        watch_instance(a, w, container, c, observed);
    }
}

fn watch_instance(
    a: &Arc<Inner>,
    w: &Arc<PodWorker>,
    container: &Container,
    c: &Instance,
    observed: &Observed,
) {
    let started = w.with(|s| s.probes.started(container, c));
    let (sender, receiver) = watch::channel(started);
    let cancel = CancellationToken::new();
    let cancel_health = cancel.child_token();
    let target = Arc::new(ProbeTarget {
        container: container.clone(),
        id: c.id.clone(),
        pod_ip: observed.ips.first().cloned().unwrap_or_default(),
        started_at: Timestamp::from_nanosecond(i128::from(c.started_at)).unwrap_or_else(|_| a.clock.now()),
        runtime: a.runtime.clone(),
        clock: a.clock.clone(),
        entropy: a.entropy.clone(),
        started: receiver,
        decided: decided(a, w, &c.id),
        bad: bad(a, w, &container.name),
    });
    for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
        if kind.of(container).is_none() || (kind == ProbeKind::Startup && started) {
            continue;
        }
        let token = if kind == ProbeKind::Readiness { cancel.clone() } else { cancel_health.clone() };
        let target = target.clone();
        a.tasks.spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = watch_probe(target, kind) => {}
            }
        });
    }
    w.with(|s| s.watched.insert(c.id.clone(), Watched { cancel, cancel_health, started: sender }));
}

fn decided(a: &Arc<Inner>, w: &Arc<PodWorker>, id: &str) -> Box<dyn Fn(ProbeKind, bool) + Send + Sync> {
    let (a, w, id) = (Arc::downgrade(a), Arc::downgrade(w), id.to_owned());
    Box::new(move |kind, good| {
        let (Some(a), Some(w)) = (a.upgrade(), w.upgrade()) else { return };
        let new = w.with(|s| {
            if kind == ProbeKind::Startup
                && good
                && let Some(watched) = s.watched.get(&id)
            {
                watched.started.send_replace(true);
            }
            s.probes.decide(&id, kind, good)
        });
        if new {
            a.dirty.mark(&w.uid);
        }
    })
}

fn bad(a: &Arc<Inner>, w: &Arc<PodWorker>, container: &str) -> Report {
    let (a, w, container) = (Arc::downgrade(a), Arc::downgrade(w), container.to_owned());
    Box::new(move |kind, outcome| {
        let (Some(a), Some(w)) = (a.upgrade(), w.upgrade()) else { return };
        let kind = kind.as_str();
        let (reason, text) = match outcome {
            Outcome::Bad(why) => ("Unhealthy", format!("{kind} probe failed: {why}")),
            Outcome::Error(why) => ("ProbeError", format!("{kind} probe error: {why}")),
            Outcome::Good => return,
        };
        a.events.container(&w.pod(), &container, WARNING, reason, text);
    })
}

/// Removes instances that nobody asks about any more, and sandboxes that are replaced.
async fn collect_garbage(a: &Inner, w: &PodWorker) {
    let observed = w.observed();
    let mut removed = false;
    let names: std::collections::BTreeSet<&str> =
        observed.containers.iter().map(|c| c.metadata.name.as_str()).collect();
    for name in names {
        for c in observed.instances(name).skip(INSTANCES_MAX).filter(|c| c.state == ContainerState::Exited) {
            removed |= a.runtime.remove_container(&c.id).await.is_ok();
            a.remove_log(&c.log_path).await;
        }
    }
    for old in observed.sandboxes.iter().skip(1) {
        let empty = observed.containers.iter().all(|c| c.sandbox_id != old.id);
        if empty && old.state == kubewright_runtime::port::PodSandboxState::NotReady {
            removed |= a.runtime.remove_pod_sandbox(&old.id).await.is_ok();
        }
    }
    if removed {
        w.invalidate();
    }
}

/// How long a status may wait for a better one.
pub(crate) const STATUS_DELAY: Duration = Duration::from_millis(50);
