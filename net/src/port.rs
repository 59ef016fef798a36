//! The port of pod networking: what a node agent asks of whatever gives pods their addresses.
//!
//! CNI's contract in Rust terms: ADD, CHECK and DEL for one sandbox, idempotent, with the result kept by the implementation.

use crate::Error;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The sandbox that is attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodAttachment {
    /// The sandbox's id (CNI's container id).
    pub sandbox_id: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// Path of its network namespace (`/var/run/netns/x`, `/proc/<pid>/ns/net`); `None` where it has none of its own.
    pub netns: Option<String>,
    /// Host ports to map.
    pub ports: Vec<PortMapping>,
    /// The pod's annotations, for bandwidth limits and the like.
    pub annotations: BTreeMap<String, String>,
}

/// A `hostPort` of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// Port on the node.
    pub host_port: u16,
    /// Port in the pod.
    pub container_port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Address on the node; `None` for all.
    pub host_ip: Option<IpAddr>,
}

/// What the pod got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodAddresses {
    /// The addresses, the primary one first.
    pub ips: Vec<IpAddr>,
}

/// Gives pods their addresses.
pub trait Network: Send + Sync + 'static {
    /// Attaches a sandbox (CNI ADD). A second call for the same sandbox gives the same addresses.
    ///
    /// # Errors
    /// Where no address is left or a plugin fails; nothing of the attachment is left then.
    ///
    /// # Cancel safety
    /// A dropped call may leave the attachment made; [`Network::teardown_pod`] cleans it.
    fn setup_pod(&self, pod: &PodAttachment) -> BoxFuture<'_, Result<PodAddresses, Error>>;

    /// Whether the attachment still stands (CNI CHECK), and its addresses.
    ///
    /// # Errors
    /// Where it does not stand.
    fn check_pod(&self, pod: &PodAttachment) -> BoxFuture<'_, Result<PodAddresses, Error>>;

    /// Detaches a sandbox (CNI DEL); an unknown one is no error.
    ///
    /// # Errors
    /// Where a plugin fails; call it again.
    ///
    /// # Cancel safety
    /// May be repeated at any time.
    fn teardown_pod(&self, pod: &PodAttachment) -> BoxFuture<'_, Result<(), Error>>;

    /// Whether the network can take pods now (CNI STATUS).
    ///
    /// # Errors
    /// Why it can't.
    fn status(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// Whether pods have a network namespace each (CNI plugins need one) or share the node's.
    fn needs_netns(&self) -> bool;
}
