//! `RuntimeService` of a fake runtime.

use super::FakeRuntime;
use super::state::{FakeContainer, Sandbox};
use crate::logs::{LineSplitter, LogFile, LogStream};
use crate::port::{
    Container, ContainerConfig, ContainerFilter, ContainerRuntime, ContainerState, ContainerStats,
    ExecSyncResult, NamespaceMode, PodSandbox, PodSandboxConfig, PodSandboxFilter, Resources,
    RuntimeCondition, StreamOptions, Version,
};
use crate::{Error, Reason};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use kubewright_core::streams::{ExecSession, PortForwardSession};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The longest time for which a waiter for changes trusts its last look at the clock.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl FakeRuntime {
    fn write_log(&self, path: &str, lines: &[String]) -> Result<(), Error> {
        if path.is_empty() || lines.is_empty() || !self.inner.config.write_logs {
            return Ok(());
        }
        let (mut splitter, mut out) = (LineSplitter::new(LogStream::Stdout), Vec::new());
        for line in lines {
            splitter.push(format!("{line}\n").as_bytes(), self.inner.clock.now(), &mut out);
        }
        LogFile::open(Path::new(path))
            .and_then(|mut file| file.append(&out))
            .map_err(|e| Error::new(Reason::Failed, format!("log file {path}: {e}")))
    }

    fn add_sandbox(&self, config: PodSandboxConfig, handler: String) -> Result<String, Error> {
        let (id, created_at) = (self.inner.new_id(), self.inner.now());
        let mut state = self.inner.state.lock();
        let host = config.security.namespaces.network == NamespaceMode::Node;
        let ip = if host { None } else { Some(state.allocate_ip()?) };
        state.sandboxes.insert(id.clone(), Sandbox { config, handler, ready: true, created_at, ip });
        drop(state);
        self.inner.announce();
        Ok(id)
    }

    fn add_container(
        &self,
        sandbox_id: String,
        config: ContainerConfig,
        sandbox: &PodSandboxConfig,
    ) -> Result<String, Error> {
        if self.image_ref(&config.image).is_none() {
            return Err(Error::new(Reason::NotFound, format!("image {:?} not found", config.image)));
        }
        let name =
            if config.user_specified_image.is_empty() { &config.image } else { &config.user_specified_image };
        let behaviour = self.inner.config.behaviour(name);
        let behaviour =
            behaviour.with_annotations(&sandbox.annotations).with_annotations(&config.annotations);
        let log_path = match (sandbox.log_directory.as_str(), config.log_path.as_str()) {
            ("", _) | (_, "") => String::new(),
            (directory, path) => Path::new(directory).join(path).display().to_string(),
        };
        let (id, created_at) = (self.inner.new_id(), self.inner.now());
        let mut state = self.inner.state.lock();
        if !state.sandbox(&sandbox_id)?.ready {
            return Err(Error::new(Reason::FailedPrecondition, format!("sandbox {sandbox_id} is not ready")));
        }
        let container = FakeContainer {
            sandbox_id,
            config,
            log_path,
            behaviour,
            created_at,
            started_at: 0,
            ends_at: i64::MAX,
            exit_code: 0,
            reason: String::new(),
        };
        state.containers.insert(id.clone(), container);
        drop(state);
        self.inner.announce();
        Ok(id)
    }

    async fn start(&self, id: &str) -> Result<(), Error> {
        let now = self.inner.now();
        let (behaviour, log_path) = {
            let state = self.inner.state.lock();
            let container = state.container(id)?;
            if container.state(now) != ContainerState::Created {
                let message = format!("container {id} is not in the created state");
                return Err(Error::new(Reason::FailedPrecondition, message));
            }
            (container.behaviour.clone(), container.log_path.clone())
        };
        self.inner.wait(behaviour.start_latency).await;
        let now = self.inner.now();
        if let Some(sentence) = behaviour.start_error {
            self.inner.state.lock().container_mut(id)?.end(now, 128, "StartError");
            self.inner.announce();
            return Err(Error::new(Reason::StartFailed, sentence));
        }
        self.write_log(&log_path, &behaviour.log_lines)?;
        self.inner.state.lock().container_mut(id)?.start(now);
        self.inner.announce();
        Ok(())
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let latency = {
            let state = self.inner.state.lock();
            match state.containers.get(id) {
                Some(container) if container.runs(self.inner.now()) => container.behaviour.stop_latency,
                _ => return Ok(()),
            }
        };
        self.inner.wait(latency.min(grace)).await;
        let now = self.inner.now();
        let mut state = self.inner.state.lock();
        if let Some(container) = state.containers.get_mut(id).filter(|container| container.runs(now)) {
            let code = if latency > grace { 137 } else { container.behaviour.stop_exit_code };
            container.end(now, code, if code == 0 { "Completed" } else { "Error" });
        }
        drop(state);
        self.inner.announce();
        Ok(())
    }

    fn views(&self, filter: &ContainerFilter) -> Vec<Container> {
        let now = self.inner.now();
        let state = self.inner.state.lock();
        let all = state.containers.iter().map(|(id, container)| container.view(id, now, ""));
        let mut found: Vec<_> = all.filter(|container| filter.matches(container)).collect();
        drop(state);
        found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        for container in &mut found {
            container.image_ref = self.image_ref(&container.image).unwrap_or_default();
        }
        found
    }
}

impl ContainerRuntime for FakeRuntime {
    fn version(&self) -> BoxFuture<'_, Result<Version, Error>> {
        Box::pin(async move {
            self.inner.check_faults("Version")?;
            Ok(Version {
                runtime_name: "kubewright-fake".to_owned(),
                runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
                runtime_api_version: "v1".to_owned(),
            })
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<Vec<RuntimeCondition>, Error>> {
        Box::pin(async move {
            self.inner.check_faults("Status")?;
            let ready = |condition: &str| RuntimeCondition {
                condition: condition.to_owned(),
                status: true,
                reason: String::new(),
                message: String::new(),
            };
            Ok(vec![ready("RuntimeReady"), ready("NetworkReady")])
        })
    }

    fn run_pod_sandbox(
        &self,
        config: &PodSandboxConfig,
        handler: &str,
    ) -> BoxFuture<'_, Result<String, Error>> {
        let (config, handler) = (config.clone(), handler.to_owned());
        Box::pin(async move {
            self.inner.check_faults("RunPodSandbox")?;
            self.inner.wait(self.inner.config.sandbox_latency).await;
            self.add_sandbox(config, handler)
        })
    }

    fn stop_pod_sandbox(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let id = id.to_owned();
        Box::pin(async move {
            self.inner.check_faults("StopPodSandbox")?;
            self.inner.state.lock().stop_sandbox(&id, self.inner.now());
            self.inner.announce();
            Ok(())
        })
    }

    fn remove_pod_sandbox(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let id = id.to_owned();
        Box::pin(async move {
            self.inner.check_faults("RemovePodSandbox")?;
            let mut state = self.inner.state.lock();
            state.stop_sandbox(&id, self.inner.now());
            state.containers.retain(|_, container| container.sandbox_id != id);
            state.sandboxes.remove(&id);
            drop(state);
            self.inner.announce();
            Ok(())
        })
    }

    fn pod_sandbox_status(&self, id: &str) -> BoxFuture<'_, Result<PodSandbox, Error>> {
        let id = id.to_owned();
        Box::pin(async move {
            self.inner.check_faults("PodSandboxStatus")?;
            Ok(self.inner.state.lock().sandbox(&id)?.view(&id, &self.inner.config.node_ip))
        })
    }

    fn list_pod_sandbox(&self, filter: PodSandboxFilter) -> BoxFuture<'_, Result<Vec<PodSandbox>, Error>> {
        Box::pin(async move {
            self.inner.check_faults("ListPodSandbox")?;
            let state = self.inner.state.lock();
            let all = state.sandboxes.iter().map(|(id, found)| found.view(id, &self.inner.config.node_ip));
            let mut found: Vec<_> = all.filter(|sandbox| filter.matches(sandbox)).collect();
            found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
            Ok(found)
        })
    }

    fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        sandbox: &PodSandboxConfig,
    ) -> BoxFuture<'_, Result<String, Error>> {
        let (id, config, sandbox) = (sandbox_id.to_owned(), config.clone(), sandbox.clone());
        Box::pin(async move {
            self.inner.check_faults("CreateContainer")?;
            self.add_container(id, config, &sandbox)
        })
    }

    fn start_container(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let id = id.to_owned();
        Box::pin(async move {
            self.inner.check_faults("StartContainer")?;
            self.start(&id).await
        })
    }

    fn stop_container(&self, id: &str, grace: Duration) -> BoxFuture<'_, Result<(), Error>> {
        let id = id.to_owned();
        Box::pin(async move {
            self.inner.check_faults("StopContainer")?;
            self.stop(&id, grace).await
        })
    }

    fn remove_container(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let id = id.to_owned();
        Box::pin(async move {
            self.inner.check_faults("RemoveContainer")?;
            self.inner.state.lock().containers.remove(&id);
            self.inner.announce();
            Ok(())
        })
    }

    fn list_containers(&self, filter: ContainerFilter) -> BoxFuture<'_, Result<Vec<Container>, Error>> {
        Box::pin(async move {
            self.inner.check_faults("ListContainers")?;
            Ok(self.views(&filter))
        })
    }

    fn container_status(&self, id: &str) -> BoxFuture<'_, Result<Container, Error>> {
        let id = id.to_owned();
        Box::pin(async move {
            self.inner.check_faults("ContainerStatus")?;
            let now = self.inner.now();
            let mut found = self.inner.state.lock().container(&id)?.view(&id, now, "");
            found.image_ref = self.image_ref(&found.image).unwrap_or_default();
            Ok(found)
        })
    }

    fn update_container_resources(
        &self,
        id: &str,
        resources: &Resources,
    ) -> BoxFuture<'_, Result<(), Error>> {
        let (id, resources) = (id.to_owned(), resources.clone());
        Box::pin(async move {
            self.inner.check_faults("UpdateContainerResources")?;
            self.inner.state.lock().container_mut(&id)?.config.resources = resources;
            Ok(())
        })
    }

    fn reopen_container_log(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let id = id.to_owned();
        Box::pin(async move {
            self.inner.check_faults("ReopenContainerLog")?;
            self.check_running(&id)?;
            let path = self.inner.state.lock().container(&id)?.log_path.clone();
            if path.is_empty() || !self.inner.config.write_logs {
                return Ok(());
            }
            let opened = LogFile::open(Path::new(&path));
            opened.map(|_| ()).map_err(|e| Error::new(Reason::Failed, format!("log file {path}: {e}")))
        })
    }

    fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        _timeout: Duration,
    ) -> BoxFuture<'_, Result<ExecSyncResult, Error>> {
        let container_id = id.to_owned();
        Box::pin(async move {
            self.inner.check_faults("ExecSync")?;
            self.check_running(&container_id)?;
            let call = super::ExecCall { container_id, command, stdin: Vec::new() };
            Ok(self.inner.config.run(&call))
        })
    }

    fn exec(&self, id: &str, options: StreamOptions) -> BoxFuture<'_, Result<ExecSession, Error>> {
        let id = id.to_owned();
        Box::pin(async move {
            self.inner.check_faults("Exec")?;
            self.check_running(&id)?;
            Ok(self.exec_session(&id, options.command, options.stdin))
        })
    }

    fn attach(&self, id: &str, _options: StreamOptions) -> BoxFuture<'_, Result<ExecSession, Error>> {
        let id = id.to_owned();
        Box::pin(async move {
            self.inner.check_faults("Attach")?;
            self.check_running(&id)?;
            Ok(self.attach_session(&id))
        })
    }

    fn port_forward(&self, sandbox_id: &str, _port: u16) -> BoxFuture<'_, Result<PortForwardSession, Error>> {
        let id = sandbox_id.to_owned();
        Box::pin(async move {
            self.inner.check_faults("PortForward")?;
            if !self.inner.state.lock().sandbox(&id)?.ready {
                return Err(Error::new(Reason::FailedPrecondition, format!("sandbox {id} is not ready")));
            }
            Ok(self.forward_session())
        })
    }

    fn list_container_stats(
        &self,
        filter: ContainerFilter,
    ) -> BoxFuture<'_, Result<Vec<ContainerStats>, Error>> {
        Box::pin(async move {
            self.inner.check_faults("ListContainerStats")?;
            let timestamp = self.inner.now();
            let running = self.views(&filter).into_iter().filter(|c| c.state == ContainerState::Running);
            Ok(running
                .map(|container| ContainerStats {
                    id: container.id,
                    metadata: container.metadata,
                    labels: container.labels,
                    timestamp,
                    ..ContainerStats::default()
                })
                .collect())
        })
    }

    fn changes(&self) -> Option<BoxStream<'static, ()>> {
        let changed = self.inner.changed.subscribe();
        let runtime = Arc::downgrade(&self.inner);
        let seen_until = self.inner.now();
        Some(Box::pin(futures::stream::unfold(
            (changed, runtime, seen_until),
            |(mut changed, runtime, mut seen_until)| async move {
                loop {
                    let due = {
                        let inner = runtime.upgrade()?;
                        let now = inner.now();
                        let due = inner.state.lock().next_end(seen_until);
                        if due.is_some_and(|due| due <= now) {
                            return Some(((), (changed, runtime, now)));
                        }
                        seen_until = now;
                        due.map(|due| Duration::from_nanos(u64::try_from(due - now).unwrap_or(0)))
                    };
                    tokio::select! {
                        told = changed.changed() => {
                            return told.is_ok().then_some(((), (changed, runtime, seen_until)));
                        }
                        () = sleep(due) => {}
                    }
                }
            },
        )))
    }
}

async fn sleep(due: Option<Duration>) {
    match due {
        Some(due) => tokio::time::sleep(due.min(LOOK_AGAIN)).await,
        None => std::future::pending().await,
    }
}
