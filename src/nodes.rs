//! Nodes that run in the plane's own process.

use crate::error::StartError;
use crate::parts::Part;
use crate::plane::Builder;
use crate::stage::Stage;
use kubewright_client::system_user;
use kubewright_core::{Entropy, SharedClock};
use kubewright_node::{NodeAgent, NodeAgentBuilder, NodeHub};
use kubewright_reconcile::Informers;
use kubewright_reconcile::client::Client;
use kubewright_server::NodeConnections;
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
    |builder: &mut Builder| {
        builder.service_proxy = true;
        builder.once("the Service proxy");
    }
}

/// Starts the Service proxy and the agents.
pub(crate) fn start(
    parts: &mut Builder,
    client: &Client,
    informers: &Informers,
    connections: &NodeConnections,
) -> Result<Stage, StartError> {
    let stage = Stage::default();
    if parts.service_proxy {
        stage.spawn(crate::service_proxy::run(informers.clone(), stage.cancel.clone()));
    }
    if parts.nodes.is_empty() {
        return Ok(stage);
    }
    let hub = NodeHub::new(informers, parts.clock.clone());
    for part in parts.nodes.drain(..) {
        let setup = NodeSetup {
            client: client
                .as_user(system_user(&format!("node:{}", part.name), &["system:nodes"]))
                .with_user_agent("kubelet"),
            name: part.name.clone(),
            hub: hub.clone(),
            clock: parts.clock.clone(),
            entropy: parts.entropy.clone(),
        };
        let agent = Arc::new((part.make)(setup).map_err(|e| StartError::new("node", e))?);
        connections.insert(&part.name, agent.clone());
        let (cancel, connections, name) = (stage.cancel.clone(), connections.clone(), part.name);
        stage.spawn(async move {
            agent.run(cancel).await;
            // The server holds the agent, and the agent a client of the server: one must let go of the other.
            connections.remove(&name);
        });
    }
    Ok(stage)
}
