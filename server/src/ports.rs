//! What the server asks others for: node agents, token issuers, computed resources.

use futures::future::BoxFuture;
use kubewright_core::node_api::NodeApi;
use kubewright_core::{ApiError, ApiRequest, ApiResponse, Verb};
use parking_lot::RwLock;
use serde_json::Value;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The node agents by node name. Cloning shares the map.
#[derive(Clone, Default)]
pub struct NodeConnections(Arc<RwLock<BTreeMap<String, Arc<dyn NodeApi>>>>);

impl NodeConnections {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects a node; gives back the agent that stood there before.
    pub fn insert(&self, node: &str, agent: Arc<dyn NodeApi>) -> Option<Arc<dyn NodeApi>> {
        self.0.write().insert(node.to_owned(), agent)
    }

    /// Disconnects a node.
    pub fn remove(&self, node: &str) -> Option<Arc<dyn NodeApi>> {
        self.0.write().remove(node)
    }

    /// The agent of a node.
    pub fn get(&self, node: &str) -> Option<Arc<dyn NodeApi>> {
        self.0.read().get(node).cloned()
    }
}

impl fmt::Debug for NodeConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.read().keys()).finish()
    }
}

/// For which service account a token is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The object that a token is bound to and dies with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundObject {
    /// `Pod`, `Secret` or `Node`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// For a pod that runs: its node's name and uid (the uid is empty when the node is unknown).
    pub node: Option<(String, String)>,
}

/// Something that counts, and is shown on `/metrics`.
pub trait MetricSource: Send + Sync + 'static {
    /// Appends its metrics in Prometheus' text form, each family with its `# HELP` and `# TYPE` lines.
    fn write(&self, out: &mut String);
}

/// Signs tokens for service accounts.
pub trait TokenIssuer: Send + Sync + 'static {
    /// Answers a `TokenRequest`: the same object with its status filled in. The server has checked that the service account and
    /// the bound object exist.
    ///
    /// # Errors
    /// 422 for a lifetime or an audience out of bounds.
    ///
    /// # Cancel safety
    /// Nothing is kept of a dropped call.
    fn issue(
        &self,
        account: ServiceAccountRef,
        bound: Option<BoundObject>,
        request: Value,
    ) -> BoxFuture<'_, Result<Value, ApiError>>;

    /// Who it says that it is, and the keys by which others check its tokens; `None` where it publishes none.
    ///
    /// # Errors
    /// Where the keys can't be had.
    fn published(&self) -> Result<Option<PublishedKeys>, ApiError>;
}

/// What `/.well-known/openid-configuration` and `/openid/v1/jwks` tell of a token issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedKeys {
    /// The issuer, an `https` URL, as tokens name it.
    pub issuer: String,
    /// The public keys as a JSON Web Key Set.
    pub keys: Value,
}

/// What discovery says of a computed resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualDescriptor {
    /// API group.
    pub group: SmolStr,
    /// Version.
    pub version: SmolStr,
    /// Plural name.
    pub plural: SmolStr,
    /// Singular name.
    pub singular: SmolStr,
    /// Kind.
    pub kind: SmolStr,
    /// Whether it is asked for in a namespace.
    pub namespaced: bool,
    /// The verbs it knows.
    pub verbs: Vec<Verb>,
}

/// A resource that is computed instead of stored: reviews, for the most part.
pub trait VirtualResource: Send + Sync + 'static {
    /// What it is.
    fn descriptor(&self) -> VirtualDescriptor;

    /// Answers a request whose resource and verb are those of the descriptor.
    ///
    /// # Errors
    /// Its own.
    fn call(&self, request: ApiRequest) -> BoxFuture<'_, Result<ApiResponse, ApiError>>;
}
