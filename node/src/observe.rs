//! Asking the runtime about a pod.

use crate::agent::Inner;
use crate::names;
use crate::observed::Observed;
use crate::policy::host_network;
use crate::worker::PodWorker;
use k8s_openapi::api::core::v1::Pod;
use kubewright_net::PodAttachment;
use kubewright_runtime::port::{
    Container, ContainerFilter, ContainerState, Labels, PodSandbox, PodSandboxFilter, PodSandboxState,
};
use kubewright_runtime::{Error, Reason};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most that is kept of a termination message, bytes; a quarter of it, and 80 lines, where it comes from the log.
const MESSAGE_BYTES_MAX: u64 = 4096;
const LOG_MESSAGE_BYTES_MAX: u64 = 2048;
const LOG_MESSAGE_LINES_MAX: usize = 80;

/// What the runtime has of a pod, noted in its worker.
pub(crate) async fn observe(a: &Inner, w: &PodWorker) -> Result<Arc<Observed>, Error> {
    // Set before asking, so that a change during the calls is seen by the next pass.
    w.with(|s| s.fresh = true);
    let labels: Labels = [(names::POD_UID.to_owned(), w.uid.to_string())].into();
    let sandboxes =
        a.runtime.list_pod_sandbox(PodSandboxFilter { labels: labels.clone(), ..Default::default() });
    let containers = a.runtime.list_containers(ContainerFilter { labels, ..Default::default() });
    let answer = futures::future::try_join(sandboxes, containers).await;
    let (sandboxes, containers) = answer.inspect_err(|_| w.invalidate())?;
    let observed = complete(a, w, sandboxes, containers).await.inspect_err(|_| w.invalidate())?;
    let observed = Arc::new(observed);
    w.with(|s| {
        s.observed = observed.clone();
        s.probes.retain(|id| observed.by_id(id).is_some_and(|c| c.state != ContainerState::Exited));
        s.watched.retain(|id, _| observed.by_id(id).is_some_and(|c| c.state == ContainerState::Running));
    });
    Ok(observed)
}

/// Fills in what only status calls tell; what is known already is not asked again.
async fn complete(
    a: &Inner,
    w: &PodWorker,
    sandboxes: Vec<PodSandbox>,
    containers: Vec<Container>,
) -> Result<Observed, Error> {
    let old = w.observed();
    let mut seen = Observed { sandboxes, containers, ips: Vec::new() };
    seen.sort();
    if let Some(newest) = seen.sandboxes.first_mut()
        && newest.state == PodSandboxState::Ready
    {
        let known = old.ready_sandbox().filter(|s| s.id == newest.id && !s.ips.is_empty());
        *newest = match known {
            Some(known) => known.clone(),
            None => addressed(a, w, a.runtime.pod_sandbox_status(&newest.id).await?).await?,
        };
        seen.ips.clone_from(&newest.ips);
    }
    let mut all = Vec::with_capacity(seen.containers.len());
    for c in std::mem::take(&mut seen.containers) {
        let known = old.by_id(&c.id).filter(|k| k.state == c.state && k.state != ContainerState::Created);
        if let Some(known) = known {
            all.push(known.clone());
            continue;
        }
        match a.runtime.container_status(&c.id).await {
            Ok(mut status) => {
                if status.state == ContainerState::Exited {
                    status.message = termination_message(a, w, &status).await;
                }
                all.push(status);
            }
            Err(e) if e.reason() == Reason::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    seen.containers = all;
    seen.sort();
    Ok(seen)
}

/// The sandbox with the addresses of a network of its own, where the runtime leaves networking to the agent.
async fn addressed(a: &Inner, w: &PodWorker, mut sandbox: PodSandbox) -> Result<PodSandbox, Error> {
    let pod = w.pod();
    if let Some(network) = a.network.as_ref().filter(|_| !host_network(&pod)) {
        let got = network.setup_pod(&attachment(&pod, &sandbox.id)).await;
        let addresses = got.map_err(|e| Error::new(Reason::Failed, format!("network setup failed: {e}")))?;
        sandbox.ips = addresses.ips.iter().map(ToString::to_string).collect();
    }
    Ok(sandbox)
}

/// A pod's sandbox as a network knows it.
pub(crate) fn attachment(pod: &Pod, sandbox_id: &str) -> PodAttachment {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    PodAttachment {
        sandbox_id: sandbox_id.to_owned(),
        namespace: text(&pod.metadata.namespace),
        name: text(&pod.metadata.name),
        uid: text(&pod.metadata.uid),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        ..PodAttachment::default()
    }
}

/// Where an instance of a container leaves its termination message.
pub(crate) fn message_file(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("containers").join(container).join(format!("{attempt:08x}"))
}

async fn termination_message(a: &Inner, w: &PodWorker, c: &Container) -> String {
    let Some(dir) = a.volumes.pod_dir(&w.uid) else { return c.message.clone() };
    let file = message_file(&dir, &c.metadata.name, c.metadata.attempt);
    let from_log =
        c.annotations.get(names::TERMINATION_MESSAGE_POLICY).is_some_and(|p| p == "FallbackToLogsOnError")
            && (c.exit_code != 0 || c.reason == "OOMKilled");
    let (log, said) = (c.log_path.clone(), c.message.clone());
    let read = tokio::task::spawn_blocking(move || {
        let written = tail(&file, MESSAGE_BYTES_MAX, true);
        if written.is_empty() && from_log { log_tail(Path::new(&log)) } else { written }
    });
    let message = read.await.unwrap_or_default();
    if message.is_empty() { said } else { message }
}

/// The beginning or the end of a file as text; empty where it can't be read.
fn tail(file: &Path, bytes: u64, from_start: bool) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut f = std::fs::File::open(file)?;
        let length = f.metadata()?.len();
        if !from_start && length > bytes {
            f.seek(SeekFrom::Start(length - bytes))?;
        }
        let mut out = Vec::new();
        f.take(bytes).read_to_end(&mut out)?;
        Ok(out)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The last lines of a log in the CRI format, without its fields.
fn log_tail(file: &Path) -> String {
    let text = tail(file, LOG_MESSAGE_BYTES_MAX * 2, false);
    let lines: Vec<&str> = text.lines().filter_map(|l| l.splitn(4, ' ').nth(3)).collect();
    let from = lines.len().saturating_sub(LOG_MESSAGE_LINES_MAX);
    let mut message = lines[from..].join("\n");
    let limit = usize::try_from(LOG_MESSAGE_BYTES_MAX).unwrap_or(usize::MAX);
    while message.len() > limit {
        let cut = message.find('\n').map_or(message.len(), |at| at + 1);
        message.drain(..cut);
    }
    if !message.is_empty() {
        message.push('\n');
    }
    message
}
