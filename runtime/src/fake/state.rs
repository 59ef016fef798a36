//! The sandboxes and containers of a fake runtime, and what they are at a time.

use super::behaviour::{Behaviour, FakeConfig};
use crate::port::{
    Container, ContainerConfig, ContainerState, Image, NamespaceMode, PodSandbox, PodSandboxConfig,
    PodSandboxState,
};
use crate::{Error, Reason};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

pub(super) struct State {
    pub(super) sandboxes: HashMap<String, Sandbox>,
    pub(super) containers: HashMap<String, FakeContainer>,
    pub(super) images: BTreeMap<String, Image>,
    addresses: Addresses,
}

pub(super) struct Sandbox {
    pub(super) config: PodSandboxConfig,
    pub(super) handler: String,
    pub(super) ready: bool,
    pub(super) created_at: i64,
    pub(super) ip: Option<Ipv4Addr>,
}

pub(super) struct FakeContainer {
    pub(super) sandbox_id: String,
    pub(super) config: ContainerConfig,
    pub(super) log_path: String,
    pub(super) behaviour: Behaviour,
    pub(super) created_at: i64,
    /// 0 until it starts.
    pub(super) started_at: i64,
    /// When it ends or ended; `i64::MAX` for "not by itself".
    pub(super) ends_at: i64,
    pub(super) exit_code: i32,
    pub(super) reason: String,
}

/// Addresses given out in turn, so that one freed is not used again at once.
struct Addresses {
    first: u32,
    count: u32,
    next: u32,
    used: BTreeSet<u32>,
}

impl State {
    pub(super) fn new(config: &FakeConfig) -> Self {
        let first = u32::from(config.pod_network);
        State {
            sandboxes: HashMap::new(),
            containers: HashMap::new(),
            images: BTreeMap::new(),
            addresses: Addresses { first, count: config.pod_addresses, next: 0, used: BTreeSet::new() },
        }
    }

    pub(super) fn allocate_ip(&mut self) -> Result<Ipv4Addr, Error> {
        let pool = &mut self.addresses;
        for _ in 0..pool.count {
            let offset = pool.next;
            pool.next = (pool.next + 1) % pool.count;
            if pool.used.insert(offset) {
                return Ok(Ipv4Addr::from(pool.first.wrapping_add(offset)));
            }
        }
        Err(Error::new(Reason::TryAgain, "no pod address is free"))
    }

    pub(super) fn release_ip(&mut self, ip: Option<Ipv4Addr>) {
        if let Some(ip) = ip {
            self.addresses.used.remove(&u32::from(ip).wrapping_sub(self.addresses.first));
        }
    }

    pub(super) fn sandbox(&self, id: &str) -> Result<&Sandbox, Error> {
        self.sandboxes.get(id).ok_or_else(|| not_found("sandbox", id))
    }

    pub(super) fn container(&self, id: &str) -> Result<&FakeContainer, Error> {
        self.containers.get(id).ok_or_else(|| not_found("container", id))
    }

    pub(super) fn container_mut(&mut self, id: &str) -> Result<&mut FakeContainer, Error> {
        self.containers.get_mut(id).ok_or_else(|| not_found("container", id))
    }

    /// Kills what runs in a sandbox, takes its address back and marks it stopped.
    pub(super) fn stop_sandbox(&mut self, id: &str, now: i64) {
        for container in self.containers.values_mut().filter(|c| c.sandbox_id == id && c.runs(now)) {
            container.end(now, 137, "Error");
        }
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        sandbox.ready = false;
        let ip = sandbox.ip.take();
        self.release_ip(ip);
    }

    /// The next time after `now` at which a container ends by itself.
    pub(super) fn next_end(&self, now: i64) -> Option<i64> {
        let ends = self.containers.values().map(|container| container.ends_at);
        ends.filter(|end| *end > now && *end != i64::MAX).min()
    }
}

fn not_found(what: &str, id: &str) -> Error {
    Error::new(Reason::NotFound, format!("{what} {id:?} not found"))
}

impl Sandbox {
    pub(super) fn view(&self, id: &str, node_ip: &str) -> PodSandbox {
        let host = self.config.security.namespaces.network == NamespaceMode::Node;
        let ips = match self.ip {
            _ if host => vec![node_ip.to_owned()],
            Some(ip) => vec![ip.to_string()],
            None => Vec::new(),
        };
        PodSandbox {
            id: id.to_owned(),
            metadata: self.config.metadata.clone(),
            state: if self.ready { PodSandboxState::Ready } else { PodSandboxState::NotReady },
            created_at: self.created_at,
            ips,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            namespaces: self.config.security.namespaces,
            runtime_handler: self.handler.clone(),
        }
    }
}

impl FakeContainer {
    pub(super) fn state(&self, now: i64) -> ContainerState {
        if self.ends_at <= now {
            ContainerState::Exited
        } else if self.started_at > 0 {
            ContainerState::Running
        } else {
            ContainerState::Created
        }
    }

    pub(super) fn runs(&self, now: i64) -> bool {
        self.state(now) == ContainerState::Running
    }

    pub(super) fn start(&mut self, now: i64) {
        self.started_at = now;
        if let Some(run_for) = self.behaviour.run_for {
            let nanos = i64::try_from(run_for.as_nanos()).unwrap_or(i64::MAX - 1);
            self.ends_at = now.saturating_add(nanos).min(i64::MAX - 1);
            self.exit_code = self.behaviour.exit_code;
            self.reason = if self.exit_code == 0 { "Completed" } else { "Error" }.to_owned();
        }
    }

    pub(super) fn end(&mut self, now: i64, exit_code: i32, reason: &str) {
        self.ends_at = now;
        self.exit_code = exit_code;
        self.reason = reason.to_owned();
    }

    pub(super) fn view(&self, id: &str, now: i64, image_ref: &str) -> Container {
        let state = self.state(now);
        let ended = state == ContainerState::Exited;
        let image = match self.config.user_specified_image.as_str() {
            "" => &self.config.image,
            name => name,
        };
        Container {
            id: id.to_owned(),
            sandbox_id: self.sandbox_id.clone(),
            metadata: self.config.metadata.clone(),
            state,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: if ended { self.ends_at } else { 0 },
            exit_code: if ended { self.exit_code } else { 0 },
            image: image.to_owned(),
            image_ref: image_ref.to_owned(),
            reason: if ended { self.reason.clone() } else { String::new() },
            message: String::new(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            log_path: self.log_path.clone(),
        }
    }
}
