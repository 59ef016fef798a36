//! Nodes that run in the plane's own process.

use crate::parts::Part;
use crate::plane::Builder;
use kubewright_core::{Entropy, SharedClock};
use kubewright_node::{NodeAgent, NodeAgentBuilder, NodeHub};
use kubewright_reconcile::client::Client;
use std::sync::Arc;

/// What a node agent is made of when the plane starts.
#[derive(Clone)]
pub struct NodeSetup {
    /// The node's name.
    pub name: String,
    /// What the agents of this process share.
    pub hub: Arc<NodeHub>,
    /// A client under the node's own identity.
    pub client: Client,
    /// The time.
    pub clock: SharedClock,
    /// Randomness for names and jitter.
    pub entropy: Arc<Entropy>,
}

impl NodeSetup {
    /// An agent's builder with all of this in it.
    pub fn agent(&self) -> NodeAgentBuilder {
        NodeAgent::builder(&self.name, self.hub.clone())
            .client(self.client.clone())
            .clock(self.clock.clone())
            .entropy(self.entropy.clone())
    }
}

type MakeNode =
    Box<dyn FnOnce(NodeSetup) -> Result<NodeAgent, Box<dyn std::error::Error + Send + Sync>> + Send>;

/// A node that is made at the start.
pub(crate) struct NodePart {
    pub(crate) name: String,
    pub(crate) make: MakeNode,
}

/// A node: `make` gives its agent when the plane starts.
pub fn node(
    name: &str,
    make: impl FnOnce(NodeSetup) -> Result<NodeAgent, Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
) -> impl Part {
    let name = name.to_owned();
    move |builder: &mut Builder| builder.nodes.push(NodePart { name, make: Box::new(make) })
}

/// A Service proxy in user space for this machine: cluster IPs in the loopback range and node ports answer.
pub fn service_proxy() -> impl Part {
    |builder: &mut Builder| builder.service_proxy = true
}
