//! `RuntimeService` over the socket.

use super::errors::{told, told_as};
use super::{CriClient, gone_is_fine, read, streaming, wire, within, write};
use crate::port::{
    Container, ContainerConfig, ContainerFilter, ContainerStats, ExecSyncResult, PodSandbox,
    PodSandboxConfig, PodSandboxFilter, Resources, RuntimeCondition, StreamOptions, Version,
};
use crate::{ContainerRuntime, Error, Reason};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use kubewright_core::streams::{ExecSession, PortForwardSession};
use std::time::Duration;

/// What a call may take on top of the time that it was told to wait.
const MARGIN: Duration = Duration::from_secs(120);

/// The pause before events are asked for again after their stream broke.
const EVENTS_PAUSE: Duration = Duration::from_secs(1);

/// CRI counts whole seconds; a part of one becomes one, as 0 has a meaning of its own.
fn seconds(duration: Duration) -> i64 {
    let whole = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    i64::try_from(whole).unwrap_or(i64::MAX)
}

/// Why a container did not start; containerd tells a wrong state in words only.
fn not_started(status: tonic::Status) -> Error {
    if status.message().contains("is in CONTAINER_") {
        return Error::new(Reason::FailedPrecondition, status.message());
    }
    told_as(Reason::StartFailed)(status)
}

impl CriClient {
    /// The sandbox of a container, which its status does not tell.
    async fn sandbox_of(&self, id: &str) -> Result<String, Error> {
        let filter = ContainerFilter { id: Some(id.to_owned()), ..ContainerFilter::default() };
        let found = self.list_containers(filter).await?;
        Ok(found.into_iter().next().map(|container| container.sandbox_id).unwrap_or_default())
    }
}

impl ContainerRuntime for CriClient {
    fn version(&self) -> BoxFuture<'_, Result<Version, Error>> {
        Box::pin(async move {
            let request = wire::VersionRequest { version: "v1".into() };
            let answer = within(self.timeouts.call, self.runtime().version(request)).await.map_err(told)?;
            let wire::VersionResponse { runtime_name, runtime_version, runtime_api_version, .. } = answer;
            Ok(Version { runtime_name, runtime_version, runtime_api_version })
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<Vec<RuntimeCondition>, Error>> {
        Box::pin(async move {
            let request = wire::StatusRequest { verbose: false };
            let answer = within(self.timeouts.call, self.runtime().status(request)).await.map_err(told)?;
            let conditions = answer.status.unwrap_or_default().conditions;
            Ok(conditions.into_iter().map(read::condition).collect())
        })
    }

    fn run_pod_sandbox(
        &self,
        config: &PodSandboxConfig,
        handler: &str,
    ) -> BoxFuture<'_, Result<String, Error>> {
        let request = wire::RunPodSandboxRequest {
            config: Some(write::sandbox(config)),
            runtime_handler: handler.to_owned(),
        };
        Box::pin(async move {
            let answer = within(self.timeouts.sandbox, self.runtime().run_pod_sandbox(request)).await;
            Ok(answer.map_err(told)?.pod_sandbox_id)
        })
    }

    fn stop_pod_sandbox(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let request = wire::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        Box::pin(async move {
            gone_is_fine(within(self.timeouts.sandbox, self.runtime().stop_pod_sandbox(request)).await)?;
            Ok(())
        })
    }

    fn remove_pod_sandbox(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let request = wire::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        Box::pin(async move {
            gone_is_fine(within(self.timeouts.sandbox, self.runtime().remove_pod_sandbox(request)).await)?;
            Ok(())
        })
    }

    fn pod_sandbox_status(&self, id: &str) -> BoxFuture<'_, Result<PodSandbox, Error>> {
        let request = wire::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        Box::pin(async move {
            let answer = within(self.timeouts.call, self.runtime().pod_sandbox_status(request)).await;
            read::sandbox_status(answer.map_err(told)?.status)
        })
    }

    fn list_pod_sandbox(&self, filter: PodSandboxFilter) -> BoxFuture<'_, Result<Vec<PodSandbox>, Error>> {
        Box::pin(async move {
            let request = wire::ListPodSandboxRequest { filter: Some(write::sandbox_filter(&filter)) };
            let answer = within(self.timeouts.call, self.runtime().list_pod_sandbox(request)).await;
            Ok(answer.map_err(told)?.items.into_iter().map(read::sandbox).collect())
        })
    }

    fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        sandbox: &PodSandboxConfig,
    ) -> BoxFuture<'_, Result<String, Error>> {
        let request = wire::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(write::container(config)),
            sandbox_config: Some(write::sandbox(sandbox)),
        };
        Box::pin(async move {
            let answer = within(self.timeouts.call, self.runtime().create_container(request)).await;
            Ok(answer.map_err(told)?.container_id)
        })
    }

    fn start_container(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let request = wire::StartContainerRequest { container_id: id.to_owned() };
        Box::pin(async move {
            let answer = within(self.timeouts.call, self.runtime().start_container(request)).await;
            answer.map(|_| ()).map_err(not_started)
        })
    }

    fn stop_container(&self, id: &str, grace: Duration) -> BoxFuture<'_, Result<(), Error>> {
        let request = wire::StopContainerRequest { container_id: id.to_owned(), timeout: seconds(grace) };
        Box::pin(async move {
            let limit = grace.saturating_add(MARGIN);
            gone_is_fine(within(limit, self.runtime().stop_container(request)).await)?;
            Ok(())
        })
    }

    fn remove_container(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let request = wire::RemoveContainerRequest { container_id: id.to_owned() };
        Box::pin(async move {
            gone_is_fine(within(self.timeouts.call, self.runtime().remove_container(request)).await)?;
            Ok(())
        })
    }

    fn list_containers(&self, filter: ContainerFilter) -> BoxFuture<'_, Result<Vec<Container>, Error>> {
        Box::pin(async move {
            let request = wire::ListContainersRequest { filter: Some(write::container_filter(&filter)) };
            let answer = within(self.timeouts.call, self.runtime().list_containers(request)).await;
            Ok(answer.map_err(told)?.containers.into_iter().map(read::container).collect())
        })
    }

    fn container_status(&self, id: &str) -> BoxFuture<'_, Result<Container, Error>> {
        let request = wire::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let id = id.to_owned();
        Box::pin(async move {
            let answer = within(self.timeouts.call, self.runtime().container_status(request)).await;
            let status = answer.map_err(told)?.status;
            read::container_status(status, self.sandbox_of(&id).await?)
        })
    }

    fn update_container_resources(
        &self,
        id: &str,
        resources: &Resources,
    ) -> BoxFuture<'_, Result<(), Error>> {
        let request = wire::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(write::resources(resources)),
            ..Default::default()
        };
        Box::pin(async move {
            let answer = within(self.timeouts.call, self.runtime().update_container_resources(request)).await;
            answer.map(|_| ()).map_err(told)
        })
    }

    fn reopen_container_log(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let request = wire::ReopenContainerLogRequest { container_id: id.to_owned() };
        Box::pin(async move {
            let answer = within(self.timeouts.call, self.runtime().reopen_container_log(request)).await;
            answer.map(|_| ()).map_err(told)
        })
    }

    fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<ExecSyncResult, Error>> {
        let request =
            wire::ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout: seconds(timeout) };
        Box::pin(async move {
            let answer = within(timeout.saturating_add(MARGIN), self.runtime().exec_sync(request)).await;
            let wire::ExecSyncResponse { stdout, stderr, exit_code } = answer.map_err(told)?;
            Ok(ExecSyncResult { stdout, stderr, exit_code })
        })
    }

    fn exec(&self, id: &str, options: StreamOptions) -> BoxFuture<'_, Result<ExecSession, Error>> {
        let request = wire::ExecRequest {
            container_id: id.to_owned(),
            cmd: options.command.clone(),
            tty: options.tty,
            stdin: options.stdin,
            stdout: options.stdout,
            stderr: options.stderr && !options.tty,
        };
        Box::pin(async move {
            let answer = within(self.timeouts.call, self.runtime().exec(request)).await.map_err(told)?;
            streaming::session(&answer.url, &options, self.timeouts.connect).await
        })
    }

    fn attach(&self, id: &str, options: StreamOptions) -> BoxFuture<'_, Result<ExecSession, Error>> {
        let request = wire::AttachRequest {
            container_id: id.to_owned(),
            stdin: options.stdin,
            tty: options.tty,
            stdout: options.stdout,
            stderr: options.stderr && !options.tty,
        };
        Box::pin(async move {
            let answer = within(self.timeouts.call, self.runtime().attach(request)).await.map_err(told)?;
            streaming::session(&answer.url, &options, self.timeouts.connect).await
        })
    }

    fn port_forward(&self, sandbox_id: &str, port: u16) -> BoxFuture<'_, Result<PortForwardSession, Error>> {
        let request =
            wire::PortForwardRequest { pod_sandbox_id: sandbox_id.to_owned(), port: vec![i32::from(port)] };
        Box::pin(async move {
            let answer =
                within(self.timeouts.call, self.runtime().port_forward(request)).await.map_err(told)?;
            streaming::port_forward(&answer.url, port, self.timeouts.connect).await
        })
    }

    fn list_container_stats(
        &self,
        filter: ContainerFilter,
    ) -> BoxFuture<'_, Result<Vec<ContainerStats>, Error>> {
        Box::pin(async move {
            let request = wire::ListContainerStatsRequest { filter: Some(write::stats_filter(&filter)) };
            let answer = within(self.timeouts.call, self.runtime().list_container_stats(request)).await;
            Ok(answer.map_err(told)?.stats.into_iter().map(read::stats).collect())
        })
    }

    fn changes(&self) -> Option<BoxStream<'static, ()>> {
        if !self.has_events {
            return None;
        }
        let client = self.clone();
        let step = |(client, mut events): (CriClient, Option<tonic::Streaming<_>>)| async move {
            if let Some(stream) = &mut events
                && let Ok(Some(wire::ContainerEventResponse { .. })) = stream.message().await
            {
                return Some(((), (client, events)));
            }
            if events.is_some() {
                tokio::time::sleep(EVENTS_PAUSE).await;
            }
            // What happened between the streams is not known, so the caller is told to look.
            let asked = client.runtime().get_container_events(wire::GetEventsRequest {}).await;
            let events = asked.ok().map(tonic::Response::into_inner);
            if events.is_none() {
                tokio::time::sleep(EVENTS_PAUSE).await;
            }
            Some(((), (client, events)))
        };
        Some(futures::stream::unfold((client, None), step).boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_seconds_round_up() {
        for (millis, want) in [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2), (30_000, 30)] {
            assert_eq!(seconds(Duration::from_millis(millis)), want, "{millis} ms");
        }
        assert_eq!(seconds(Duration::MAX), i64::MAX);
    }
}
