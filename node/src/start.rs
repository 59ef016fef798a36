//! Starting one container of a pod.

use crate::actions::KillWhy;
use crate::agent::Inner;
use crate::backoff::go_duration;
use crate::env::{EnvSources, environment};
use crate::events::{NORMAL, WARNING};
use crate::expand::expand;
use crate::images::PulledImage;
use crate::observe::message_file;
use crate::observed::restart_count;
use crate::worker::PodWorker;
use crate::{cri, hooks, names, terminate};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use kubewright_runtime::port::{
    ContainerConfig, ContainerMetadata, ContainerState, Mount, MountPropagation, PodSandboxConfig,
};
use kubewright_storage::{NodeFacts, PodVolumes, resolve_subpath};
use std::path::Path;

/// What starting containers of a pod needs, the same for all of them.
pub(crate) struct PodContext<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) sandbox_id: &'a str,
    pub(crate) sandbox: &'a PodSandboxConfig,
    pub(crate) volumes: &'a PodVolumes,
    pub(crate) facts: &'a NodeFacts,
}

/// Why a container does not run yet.
pub(crate) struct Waits {
    reason: &'static str,
    message: String,
    retry_at: Option<Timestamp>,
}

/// How long after a failure of configuration or creation the next try comes.
const RETRY: SignedDuration = SignedDuration::from_secs(5);

/// Starts a container, or notes why it waits. Gives when to try again.
pub(crate) async fn start(
    a: &Inner,
    w: &PodWorker,
    cx: &PodContext<'_>,
    container: &Container,
) -> Result<(), Option<Timestamp>> {
    match attempt(a, w, cx, container).await {
        Ok(()) => {
            w.with(|s| s.waits.remove(&container.name));
            Ok(())
        }
        Err(waits) => {
            w.with(|s| s.waits.insert(container.name.clone(), (waits.reason.to_owned(), waits.message)));
            Err(waits.retry_at)
        }
    }
}

async fn attempt(a: &Inner, w: &PodWorker, cx: &PodContext<'_>, container: &Container) -> Result<(), Waits> {
    crash_backoff(a, w, cx.pod, container)?;
    let image = a.images.ensure(cx.pod, container, &**a.hub.source(), &a.events).await;
    let image = image.map_err(|f| Waits { reason: f.reason, message: f.message, retry_at: f.retry_at })?;
    let fails = |reason: &'static str, message: String| {
        a.events.container(cx.pod, &container.name, WARNING, "Failed", format!("Error: {message}"));
        Waits { reason, message, retry_at: a.clock.now().checked_add(RETRY).ok() }
    };
    let config = configure(a, w, cx, container, &image).await;
    let config = config.map_err(|message| fails("CreateContainerConfigError", message))?;
    let id = a.runtime.create_container(cx.sandbox_id, &config, cx.sandbox).await;
    let id = id.map_err(|e| fails("CreateContainerError", e.to_string()))?;
    w.invalidate();
    let event =
        |reason, message: String| a.events.container(cx.pod, &container.name, NORMAL, reason, message);
    event("Created", "Container created".to_owned());
    a.runtime.start_container(&id).await.map_err(|e| fails("RunContainerError", e.to_string()))?;
    event("Started", "Container started".to_owned());
    let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
    let Some(hook) = hook.filter(|_| !a.settings.simulated) else { return Ok(()) };
    let ip = cx.facts.pod_ips.first().map_or("", String::as_str);
    if let Err(why) = hooks::run_hook(&*a.runtime, hook, container, &id, ip).await {
        tracing::debug!(pod = w.name, container = container.name, error = why, "postStart hook failed");
        a.events.container(
            cx.pod,
            &container.name,
            WARNING,
            "FailedPostStartHook",
            "PostStartHook failed".to_owned(),
        );
        let message = "FailedPostStartHook".to_owned();
        terminate::kill_container(a, w, cx.pod, &id, &container.name, message, KillWhy::Other, None).await;
        return Err(fails("PostStartHookError", "PostStartHook failed".to_owned()));
    }
    Ok(())
}

/// Makes a container that ended wait for its turn.
fn crash_backoff(a: &Inner, w: &PodWorker, pod: &Pod, container: &Container) -> Result<(), Waits> {
    let observed = w.observed();
    let Some(ended) = observed.newest(&container.name).filter(|c| c.state == ContainerState::Exited) else {
        return Ok(());
    };
    let key = (w.uid.clone(), container.name.clone(), cri::spec_hash(container));
    let now = a.clock.now();
    let finished = Timestamp::from_nanosecond(i128::from(ended.finished_at)).unwrap_or(now);
    let mut backoff = a.backoff.lock();
    let Some(until) = backoff.until(&key, finished, now) else {
        backoff.failed(&key, now);
        return Ok(());
    };
    let wait = go_duration(backoff.wait(&key));
    drop(backoff);
    let whose = format!("{}_{}({})", w.name, w.namespace, w.uid);
    let name = &container.name;
    let text = format!("Back-off restarting failed container {name} in pod {whose}");
    a.events.container(pod, name, WARNING, "BackOff", text);
    let message = format!("back-off {wait} restarting failed container={name} pod={whose}");
    Err(Waits { reason: "CrashLoopBackOff", message, retry_at: Some(until) })
}

/// How often this container was started before.
fn restarts(w: &PodWorker, pod: &Pod, container: &Container) -> u32 {
    let observed = w.observed();
    if let Some(newest) = observed.newest(&container.name) {
        return u32::try_from(restart_count(newest)).unwrap_or(0).saturating_add(1);
    }
    let status = pod.status.as_ref();
    let mut all = status
        .into_iter()
        .flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
    let known = all.find(|s| s.name == container.name && s.container_id.is_some());
    known.map_or(0, |s| u32::try_from(s.restart_count).unwrap_or(0).saturating_add(1))
}

/// The configuration of a container; the error is the sentence of `CreateContainerConfigError`.
async fn configure(
    a: &Inner,
    w: &PodWorker,
    cx: &PodContext<'_>,
    container: &Container,
    image: &PulledImage,
) -> Result<ContainerConfig, String> {
    cri::verify_non_root(cx.pod, container, image.image.uid, &image.image.username)?;
    let services = a.hub.services(&w.namespace);
    let sources = EnvSources { objects: &**a.hub.source(), facts: cx.facts, services: &services };
    let envs = environment(cx.pod, container, &sources).await.map_err(|e| e.to_string())?;
    let lookup = |name: &str| envs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let words = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|word| expand(word, lookup)).collect()
    };
    let restarts = restarts(w, cx.pod, container);
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        mounts.push(volume_mount(cx, mount, lookup)?);
    }
    mounts.extend(own_files(a, w, cx, container, restarts)?);
    let mut labels = cri::pod_labels(cx.pod);
    labels.insert(names::CONTAINER_NAME.to_owned(), container.name.clone());
    Ok(ContainerConfig {
        metadata: ContainerMetadata { name: container.name.clone(), attempt: restarts },
        image: image.reference.clone(),
        user_specified_image: container.image.clone().unwrap_or_default(),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts,
        labels,
        annotations: cri::container_annotations(cx.pod, container, restarts),
        log_path: format!("{}/{restarts}.log", container.name),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        resources: cri::container_resources(cx.pod, container, a.settings.memory_bytes()),
        security: cri::security(cx.pod, container),
        devices: Vec::new(),
        envs,
    })
}

fn volume_mount<'e>(
    cx: &PodContext<'_>,
    mount: &VolumeMount,
    lookup: impl Fn(&str) -> Option<&'e str>,
) -> Result<Mount, String> {
    let volume = cx
        .volumes
        .0
        .get(&mount.name)
        .ok_or_else(|| format!("cannot find volume \"{}\" to mount into container", mount.name))?;
    let sub_path = match mount.sub_path_expr.as_deref().filter(|e| !e.is_empty()) {
        Some(expression) => {
            let text = expand(expression, lookup);
            if text.contains("$(") {
                return Err(format!("missing value for \"{expression}\" in subPathExpr"));
            }
            text
        }
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    let path = if sub_path.is_empty() {
        volume.path.clone()
    } else {
        let fails = |e| format!("failed to create subPath directory for volumeMount \"{}\": {e}", mount.name);
        resolve_subpath(&volume.path, &sub_path).map_err(fails)?
    };
    let container_path = if mount.mount_path.starts_with('/') {
        mount.mount_path.clone()
    } else {
        format!("/{}", mount.mount_path)
    };
    Ok(Mount {
        container_path,
        host_path: path.to_string_lossy().into_owned(),
        readonly: volume.read_only || mount.read_only.unwrap_or(false),
        selinux_relabel: false,
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => MountPropagation::HostToContainer,
            Some("Bidirectional") => MountPropagation::Bidirectional,
            _ => MountPropagation::Private,
        },
    })
}

/// `/etc/hosts` and the file of the termination message, where pods have a directory.
fn own_files(
    a: &Inner,
    w: &PodWorker,
    cx: &PodContext<'_>,
    container: &Container,
    restarts: u32,
) -> Result<Vec<Mount>, String> {
    let Some(dir) = a.volumes.pod_dir(&w.uid) else { return Ok(Vec::new()) };
    let fails = |path: &Path, e: std::io::Error| format!("cannot write {}: {e}", path.display());
    let mount = |container_path: &str, path: &Path| Mount {
        container_path: container_path.to_owned(),
        host_path: path.to_string_lossy().into_owned(),
        ..Mount::default()
    };
    let mounted = |path: &str| container.volume_mounts.iter().flatten().any(|m| m.mount_path == path);
    let mut mounts = Vec::new();
    if !mounted("/etc/hosts") && !crate::policy::host_network(cx.pod) {
        let path = dir.join("etc-hosts");
        std::fs::create_dir_all(&dir).map_err(|e| fails(&dir, e))?;
        let text = cri::hosts_file(cx.pod, &cx.facts.pod_ips, &a.settings.dns.domain);
        std::fs::write(&path, text).map_err(|e| fails(&path, e))?;
        mounts.push(mount("/etc/hosts", &path));
    }
    let message_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if !message_path.is_empty() {
        let path = message_file(&dir, &container.name, restarts);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| fails(parent, e))?;
        }
        std::fs::write(&path, "").map_err(|e| fails(&path, e))?;
        // Any user of the container may write it.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(&path, mode).map_err(|e| fails(&path, e))?;
        mounts.push(mount(message_path, &path));
    }
    Ok(mounts)
}
