//! What the API server asks of a node: logs, exec, attach, port-forward, with upstream's errors.

use crate::agent::{Inner, NodeAgent};
use crate::observed::Observed;
use crate::worker::PodWorker;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kubewright_core::node_api::{ContainerRef, ExecOptions, LogOptions, NodeApi};
use kubewright_core::streams::{ExecSession, PortForwardSession};
use kubewright_core::{ApiError, Reason};
use kubewright_runtime::port::{Container, ContainerState, StreamOptions};
use kubewright_runtime::{Error, logs};
use std::path::Path;
use std::sync::Arc;

fn runtime_error(e: &Error) -> ApiError {
    match e.reason() {
        kubewright_runtime::Reason::NotFound => ApiError::new(Reason::NotFound, e.to_string()),
        kubewright_runtime::Reason::Invalid | kubewright_runtime::Reason::FailedPrecondition => {
            ApiError::bad_request(e.to_string())
        }
        kubewright_runtime::Reason::Unsupported => ApiError::not_implemented(e),
        _ => ApiError::internal(e),
    }
}

fn find(a: &Inner, target: &ContainerRef) -> Result<Arc<PodWorker>, ApiError> {
    let by_uid = a.worker(&target.uid);
    let worker = by_uid.or_else(|| {
        let workers = a.workers.lock();
        let is = |w: &&Arc<PodWorker>| {
            target.uid.is_empty() && w.name == target.pod && w.namespace == target.namespace
        };
        workers.values().find(is).cloned()
    });
    worker.ok_or_else(|| {
        let message = format!("pod \"{}\" not found", target.pod);
        ApiError::new(Reason::NotFound, message).for_object("", "pods", &target.pod)
    })
}

/// What the API server knows of a container of this pod.
fn status_of(pod: &Pod, name: &str) -> Option<ContainerStatus> {
    let status = pod.status.as_ref()?;
    let mut all = (status.container_statuses.iter())
        .chain(&status.init_container_statuses)
        .chain(&status.ephemeral_container_statuses)
        .flatten();
    all.find(|s| s.name == name).cloned()
}

fn declared(pod: &Pod, name: &str) -> bool {
    let spec = pod.spec.as_ref();
    let mut all =
        spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    all.any(|c| c.name == name)
        || spec.is_some_and(|s| s.ephemeral_containers.iter().flatten().any(|c| c.name == name))
}

fn not_declared(target: &ContainerRef) -> ApiError {
    ApiError::bad_request(format!("container {} is not valid for pod {}", target.container, target.pod))
}

/// The instance whose log is wanted.
fn instance_for_logs(
    pod: &Pod,
    reported: Option<&ContainerStatus>,
    observed: &Observed,
    target: &ContainerRef,
    previous: bool,
) -> Result<Container, ApiError> {
    let (name, pod_name) = (&target.container, &target.pod);
    if !declared(pod, name) {
        return Err(not_declared(target));
    }
    let mut instances = observed.instances(name);
    if previous {
        let newest = instances.next();
        // Until it is started again, the one that ended last is the previous one.
        let ended = instances
            .find(|c| c.state == ContainerState::Exited)
            .or_else(|| newest.filter(|c| c.state == ContainerState::Exited && waits_again(reported)));
        return ended.cloned().ok_or_else(|| {
            ApiError::bad_request(format!(
                "previous terminated container \"{name}\" in pod \"{pod_name}\" not found"
            ))
        });
    }
    match instances.next().filter(|c| c.state != ContainerState::Created) {
        Some(c) => Ok(c.clone()),
        None => {
            let waiting = reported.and_then(|s| s.state.as_ref()?.waiting.clone());
            let reason = waiting.and_then(|w| w.reason).unwrap_or_else(|| "ContainerCreating".to_owned());
            let why = match reason.as_str() {
                "ErrImagePull" | "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
                other => other.to_owned(),
            };
            let text = format!("container \"{name}\" in pod \"{pod_name}\" is waiting to start: {why}");
            Err(ApiError::bad_request(text))
        }
    }
}

fn waits_again(reported: Option<&ContainerStatus>) -> bool {
    reported.is_some_and(|s| s.state.as_ref().is_some_and(|s| s.waiting.is_some()))
}

/// The instance that runs now.
fn running(w: &PodWorker, target: &ContainerRef) -> Result<Container, ApiError> {
    if !declared(&w.pod(), &target.container) {
        return Err(not_declared(target));
    }
    let observed = w.observed();
    let newest = observed.newest(&target.container).filter(|c| c.state == ContainerState::Running);
    newest.cloned().ok_or_else(|| {
        ApiError::new(Reason::NotFound, format!("container not found (\"{}\")", target.container))
    })
}

fn streams(options: ExecOptions) -> StreamOptions {
    StreamOptions {
        command: options.command,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr && !options.tty,
        tty: options.tty,
    }
}

impl NodeApi for NodeAgent {
    fn logs(
        &self,
        target: ContainerRef,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Bytes, ApiError>>, ApiError>> {
        Box::pin(async move {
            let a = &self.inner;
            let w = find(a, &target)?;
            let (pod, reported) = w.with(|s| {
                let mut pod = (*s.pod).clone();
                pod.status.clone_from(&s.reported);
                let reported = status_of(&pod, &target.container);
                (pod, reported)
            });
            let c = instance_for_logs(&pod, reported.as_ref(), &w.observed(), &target, options.previous)?;
            let (runtime, id) = (a.runtime.clone(), c.id.clone());
            let still: logs::StillRunning = Arc::new(move || {
                let (runtime, id) = (runtime.clone(), id.clone());
                Box::pin(async move {
                    runtime.container_status(&id).await.is_ok_and(|c| c.state == ContainerState::Running)
                })
            });
            let log = if c.log_path.is_empty() {
                a.runtime.container_status(&c.id).await.map_err(|e| runtime_error(&e))?.log_path
            } else {
                c.log_path
            };
            let still = Some(still).filter(|_| options.follow);
            let stream = logs::read(Path::new(&log), &options, still).await.map_err(|e| runtime_error(&e))?;
            Ok(stream.map(|item| item.map_err(|e| runtime_error(&e))).boxed())
        })
    }

    fn exec(
        &self,
        target: ContainerRef,
        options: ExecOptions,
    ) -> BoxFuture<'_, Result<ExecSession, ApiError>> {
        Box::pin(async move {
            let w = find(&self.inner, &target)?;
            if options.command.is_empty() {
                return Err(ApiError::bad_request("you must specify at least one command for the container"));
            }
            let c = running(&w, &target)?;
            self.inner.runtime.exec(&c.id, streams(options)).await.map_err(|e| runtime_error(&e))
        })
    }

    fn attach(
        &self,
        target: ContainerRef,
        options: ExecOptions,
    ) -> BoxFuture<'_, Result<ExecSession, ApiError>> {
        Box::pin(async move {
            let w = find(&self.inner, &target)?;
            let c = running(&w, &target)?;
            self.inner.runtime.attach(&c.id, streams(options)).await.map_err(|e| runtime_error(&e))
        })
    }

    fn port_forward(
        &self,
        target: ContainerRef,
        port: u16,
    ) -> BoxFuture<'_, Result<PortForwardSession, ApiError>> {
        Box::pin(async move {
            let w = find(&self.inner, &target)?;
            let observed = w.observed();
            let sandbox = observed.ready_sandbox().ok_or_else(|| {
                ApiError::bad_request(format!(
                    "unable to forward port because pod is not running. Current status={}",
                    w.pod().status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
                ))
            })?;
            self.inner.runtime.port_forward(&sandbox.id, port).await.map_err(|e| runtime_error(&e))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{instance, observed, pod};
    use serde_json::json;

    #[test]
    fn logs_name_what_is_missing() {
        let p = pod(json!({"containers": [{"name": "c"}]}));
        let waiting = |reason: &str| -> ContainerStatus {
            serde_json::from_value(
                json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason}}}),
            )
            .unwrap()
        };
        let target = |name: &str| ContainerRef {
            namespace: "n".into(),
            pod: "p".into(),
            uid: "u".into(),
            container: name.into(),
        };
        let check = |name: &str,
                     reported: Option<ContainerStatus>,
                     seen: &[Container],
                     previous: bool,
                     wanted: Result<&str, &str>| {
            let got = instance_for_logs(&p, reported.as_ref(), &observed(seen), &target(name), previous);
            let got = got.map(|c| c.id).map_err(|e| e.message().to_owned());
            assert_eq!(got, wanted.map(str::to_owned).map_err(str::to_owned));
        };
        check("x", None, &[], false, Err("container x is not valid for pod p"));
        check(
            "c",
            None,
            &[],
            false,
            Err("container \"c\" in pod \"p\" is waiting to start: ContainerCreating"),
        );
        let image = Err("container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image");
        check("c", Some(waiting("ErrImagePull")), &[], false, image);
        let running = instance("c", "running", 0);
        check("c", None, std::slice::from_ref(&running), false, Ok("id-c"));
        let none = Err("previous terminated container \"c\" in pod \"p\" not found");
        check("c", None, std::slice::from_ref(&running), true, none);
        let mut old = instance("c", "exited", 1);
        old.id = "old".to_owned();
        check("c", None, &[running, old.clone()], true, Ok("old"));
        check("c", Some(waiting("CrashLoopBackOff")), std::slice::from_ref(&old), true, Ok("old"));
        check("c", None, &[old], true, none);
    }
}
