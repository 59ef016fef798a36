//! What the runtime says about one pod.

use crate::names;
use kubewright_runtime::port::{Container, ContainerState, PodSandbox, PodSandboxState};
use std::cmp::Reverse;

/// The sandboxes and containers of one pod, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Sandboxes, newest first.
    pub sandboxes: Vec<PodSandbox>,
    /// Containers of all attempts, newest first.
    pub containers: Vec<Container>,
    /// The pod's addresses, the primary one first.
    pub ips: Vec<String>,
}

impl Observed {
    /// Puts the newest first.
    pub fn sort(&mut self) {
        self.sandboxes.sort_by_key(|s| Reverse((s.created_at, s.metadata.attempt)));
        self.containers.sort_by_key(|c| Reverse((c.created_at, c.metadata.attempt)));
    }

    /// The newest instance of a container.
    pub fn newest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.metadata.name == name)
    }

    /// The newest instance of a container in the newest sandbox.
    pub fn in_sandbox(&self, name: &str) -> Option<&Container> {
        let sandbox = self.sandboxes.first()?;
        self.containers.iter().find(|c| c.metadata.name == name && c.sandbox_id == sandbox.id)
    }

    /// All instances of a container, newest first.
    pub fn instances<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Container> {
        self.containers.iter().filter(move |c| c.metadata.name == name)
    }

    /// The instance with this id.
    pub fn by_id(&self, id: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.id == id)
    }

    /// The newest sandbox, where it is ready.
    pub fn ready_sandbox(&self) -> Option<&PodSandbox> {
        self.sandboxes.first().filter(|s| s.state == PodSandboxState::Ready)
    }

    /// Whether some container runs.
    pub fn any_running(&self) -> bool {
        self.containers.iter().any(|c| c.state == ContainerState::Running)
    }
}

/// How often a container was restarted before this instance.
pub fn restart_count(container: &Container) -> i32 {
    let noted = container.annotations.get(names::RESTART_COUNT).and_then(|t| t.parse().ok());
    noted.unwrap_or_else(|| i32::try_from(container.metadata.attempt).unwrap_or(i32::MAX))
}
