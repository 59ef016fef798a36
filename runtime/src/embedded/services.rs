//! `RuntimeService` and `ImageService` of the embedded runtime.

use super::client;
use super::shim::ShimRequest;
use super::{EmbeddedRuntime, Isolation};
use crate::port::{
    AuthConfig, Container, ContainerConfig, ContainerFilter, ContainerRuntime, ContainerStats,
    ExecSyncResult, FilesystemUsage, Image, ImageService, PodSandbox, PodSandboxConfig, PodSandboxFilter,
    Resources, RuntimeCondition, StreamOptions, Version,
};
use crate::{Error, Reason};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use kubewright_core::streams::{ExecSession, PortForwardSession};
use std::sync::Arc;
use std::time::Duration;

impl EmbeddedRuntime {
    fn conditions(&self) -> Vec<RuntimeCondition> {
        let condition = |name: &str, reason: &str, message: &str| RuntimeCondition {
            condition: name.to_owned(),
            status: true,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let (reason, message, network) = match self.inner.isolation {
            Isolation::Root => {
                ("NamespacesAsRoot", "containers are in namespaces made as root", "PodNetworks")
            }
            Isolation::UserNamespace => (
                "UserNamespaces",
                "containers are in namespaces of an ordinary user: one user exists in them",
                "PodNetworks",
            ),
            Isolation::Process => (
                "NoNamespaces",
                "this machine allows no namespaces: containers share its file system, network and processes",
                "HostNetwork",
            ),
        };
        vec![condition("RuntimeReady", reason, message), condition("NetworkReady", network, message)]
    }
}

impl ContainerRuntime for EmbeddedRuntime {
    fn version(&self) -> BoxFuture<'_, Result<Version, Error>> {
        let version = Version {
            runtime_name: "kubewright".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        };
        Box::pin(async move { Ok(version) })
    }

    fn status(&self) -> BoxFuture<'_, Result<Vec<RuntimeCondition>, Error>> {
        Box::pin(async move { Ok(self.conditions()) })
    }

    fn run_pod_sandbox(
        &self,
        config: &PodSandboxConfig,
        handler: &str,
    ) -> BoxFuture<'_, Result<String, Error>> {
        let (config, handler) = (config.clone(), handler.to_owned());
        Box::pin(async move { self.inner.run_sandbox(config, handler).await })
    }

    fn stop_pod_sandbox(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let id = id.to_owned();
        Box::pin(async move { self.inner.stop_sandbox(&id).await })
    }

    fn remove_pod_sandbox(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let id = id.to_owned();
        Box::pin(async move { self.inner.remove_sandbox(&id).await })
    }

    fn pod_sandbox_status(&self, id: &str) -> BoxFuture<'_, Result<PodSandbox, Error>> {
        let found = self.inner.sandbox(id).map(|entry| entry.view(&self.inner.config.node_ip));
        Box::pin(async move { found })
    }

    fn list_pod_sandbox(&self, filter: PodSandboxFilter) -> BoxFuture<'_, Result<Vec<PodSandbox>, Error>> {
        Box::pin(async move {
            let all: Vec<_> = self.inner.sandboxes.lock().values().cloned().collect();
            let views = all.iter().map(|entry| entry.view(&self.inner.config.node_ip));
            let mut found: Vec<_> = views.filter(|sandbox| filter.matches(sandbox)).collect();
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
        Box::pin(async move { self.inner.create_container(&id, config, &sandbox).await })
    }

    fn start_container(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let id = id.to_owned();
        Box::pin(async move { self.inner.start_container(&id).await })
    }

    fn stop_container(&self, id: &str, grace: Duration) -> BoxFuture<'_, Result<(), Error>> {
        let id = id.to_owned();
        Box::pin(async move {
            match self.inner.container(&id) {
                Ok(entry) => self.inner.stop_container(&entry, grace).await,
                Err(_) => Ok(()),
            }
        })
    }

    fn remove_container(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let id = id.to_owned();
        Box::pin(async move { self.inner.remove_container(&id).await })
    }

    fn list_containers(&self, filter: ContainerFilter) -> BoxFuture<'_, Result<Vec<Container>, Error>> {
        Box::pin(async move {
            let all: Vec<_> = self.inner.containers.lock().values().cloned().collect();
            let views = all.iter().map(|entry| entry.view());
            let mut found: Vec<_> = views.filter(|container| filter.matches(container)).collect();
            found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
            Ok(found)
        })
    }

    fn container_status(&self, id: &str) -> BoxFuture<'_, Result<Container, Error>> {
        let found = self.inner.container(id).map(|entry| entry.view());
        Box::pin(async move { found })
    }

    fn update_container_resources(
        &self,
        id: &str,
        resources: &Resources,
    ) -> BoxFuture<'_, Result<(), Error>> {
        let (id, resources) = (id.to_owned(), resources.clone());
        Box::pin(async move {
            self.inner.container(&id)?.running()?;
            let Some(cgroups) = &self.inner.cgroups else {
                return Err(Error::new(
                    Reason::Unsupported,
                    "this runtime may write no cgroups, so it has no limits",
                ));
            };
            match cgroups.limit(&id, &resources).as_slice() {
                [] => Ok(()),
                refused => Err(Error::new(Reason::Failed, format!("refused: {}", refused.join(", ")))),
            }
        })
    }

    fn reopen_container_log(&self, id: &str) -> BoxFuture<'_, Result<(), Error>> {
        let id = id.to_owned();
        Box::pin(async move {
            let entry = self.inner.container(&id)?;
            entry.running()?;
            client::ask(&entry.socket(), &ShimRequest::ReopenLog).await
        })
    }

    fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<ExecSyncResult, Error>> {
        let id = id.to_owned();
        Box::pin(async move { self.inner.exec_sync(&id, command, timeout).await })
    }

    fn exec(&self, id: &str, options: StreamOptions) -> BoxFuture<'_, Result<ExecSession, Error>> {
        let id = id.to_owned();
        Box::pin(async move { self.inner.exec(&id, options).await })
    }

    fn attach(&self, id: &str, options: StreamOptions) -> BoxFuture<'_, Result<ExecSession, Error>> {
        let id = id.to_owned();
        Box::pin(async move { self.inner.attach(&id, options).await })
    }

    fn port_forward(&self, sandbox_id: &str, port: u16) -> BoxFuture<'_, Result<PortForwardSession, Error>> {
        let id = sandbox_id.to_owned();
        Box::pin(async move { self.inner.port_forward(&id, port).await })
    }

    fn list_container_stats(
        &self,
        filter: ContainerFilter,
    ) -> BoxFuture<'_, Result<Vec<ContainerStats>, Error>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let work = tokio::task::spawn_blocking(move || inner.stats(&filter)).await;
            work.map_err(|e| Error::new(Reason::Failed, e.to_string()))
        })
    }

    fn changes(&self) -> Option<BoxStream<'static, ()>> {
        let changed = self.inner.changed.subscribe();
        Some(Box::pin(futures::stream::unfold(changed, |mut changed| async move {
            changed.changed().await.is_ok().then_some(((), changed))
        })))
    }
}

impl ImageService for EmbeddedRuntime {
    fn list_images(&self) -> BoxFuture<'_, Result<Vec<Image>, Error>> {
        Box::pin(async move { Ok(self.inner.images.list()) })
    }

    fn image_status(&self, image: &str) -> BoxFuture<'_, Result<Option<Image>, Error>> {
        let found = self.inner.images.find(image).map(|image| image.view());
        Box::pin(async move { Ok(found) })
    }

    fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> BoxFuture<'_, Result<String, Error>> {
        let image = image.to_owned();
        Box::pin(async move { self.inner.images.pull(&image, auth).await })
    }

    fn remove_image(&self, image: &str) -> BoxFuture<'_, Result<(), Error>> {
        let image = image.to_owned();
        Box::pin(async move {
            let Some(found) = self.inner.images.find(&image) else { return Ok(()) };
            let used = self.inner.containers.lock().values().any(|entry| entry.record.image_id == found.id);
            if used {
                let words = format!("image {image:?} is used by a container");
                return Err(Error::new(Reason::FailedPrecondition, words));
            }
            self.inner.images.remove(&found.id).await
        })
    }

    fn image_fs_info(&self) -> BoxFuture<'_, Result<Vec<FilesystemUsage>, Error>> {
        Box::pin(async move { Ok(vec![self.inner.images.usage().await?]) })
    }
}
