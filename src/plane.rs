//! The composition: what was added, the checks, and the start.

use crate::Https;
use crate::error::{BuildError, BuildErrors, StartError};
use crate::nodes::NodePart;
use crate::parts::{ApiService, Part};
use crate::running::{RunningPlane, start};
use kubewright_core::{Entropy, Registry, SharedClock, SystemClock};
use kubewright_reconcile::Controller;
use kubewright_server::VirtualResource;
use kubewright_server::admission::Admission;
use kubewright_server::auth::Authorizer;
use kubewright_store::Store;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What is known when controllers are made.
#[derive(Clone, Debug)]
pub struct PlaneContext {
    /// The authority's certificate as PEM, where the plane has one.
    pub ca_pem: Option<String>,
    /// Randomness for names.
    pub entropy: Arc<Entropy>,
    /// The time.
    pub clock: SharedClock,
}

type MakeController = Box<dyn FnOnce(&PlaneContext) -> Option<Controller> + Send>;
type MakeLayer = Box<dyn FnOnce(ApiService) -> ApiService + Send>;

/// A controller that is made at the start.
pub(crate) struct LateController {
    pub(crate) name: &'static str,
    pub(crate) make: MakeController,
}

/// Collects the parts of a control plane. Parts are added with [`Builder::with`]; see [`crate::parts`].
pub struct Builder {
    pub(crate) store: Option<Arc<dyn Store>>,
    pub(crate) registry: Registry,
    pub(crate) controllers: Vec<LateController>,
    pub(crate) admission: Vec<Arc<dyn Admission>>,
    pub(crate) virtuals: Vec<Arc<dyn VirtualResource>>,
    pub(crate) layers: Vec<MakeLayer>,
    pub(crate) nodes: Vec<NodePart>,
    pub(crate) https: Option<Https>,
    pub(crate) authorizer: Option<Arc<dyn Authorizer>>,
    pub(crate) clock: SharedClock,
    pub(crate) entropy: Arc<Entropy>,
    pub(crate) keys: Option<PathBuf>,
    pub(crate) service_cidr: Option<String>,
    pub(crate) service_proxy: bool,
    pub(crate) errors: Vec<BuildError>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let controllers: Vec<_> = self.controllers.iter().map(|c| c.name).collect();
        f.debug_struct("Builder")
            .field("kinds", &self.registry.iter().count())
            .field("controllers", &controllers)
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Adds a part.
    #[must_use]
    pub fn with(mut self, part: impl Part) -> Self {
        part.add(&mut self);
        self
    }

    /// Checks the composition. Nothing runs yet, and nothing is read or written.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn build(mut self) -> Result<ControlPlane, BuildErrors> {
        let mut errors = std::mem::take(&mut self.errors);
        if self.store.is_none() {
            errors.push(BuildError::NoStore);
        }
        let mut names = BTreeSet::new();
        let twice = self.controllers.iter().map(|c| c.name).filter(|name| !names.insert(*name));
        errors.extend(twice.map(|name| BuildError::DuplicateController(name.to_owned())));
        let mut names = BTreeSet::new();
        let twice = self.nodes.iter().map(|n| n.name.as_str()).filter(|name| !names.insert(*name));
        errors.extend(twice.map(|name| BuildError::DuplicateNode(name.to_owned())));
        let nodes_kind = self.registry.by_kind("", "v1", "Node").is_some();
        if !nodes_kind {
            let needs = "the kind Node (see `bundles::kinds`)";
            let missing = |part: String| BuildError::Missing { part, needs };
            errors.extend(self.nodes.iter().map(|n| missing(format!("the node {}", n.name))));
            let scheduler = self.controllers.iter().filter(|c| c.name == "scheduler");
            errors.extend(scheduler.map(|_| missing("the scheduler".to_owned())));
        }
        if errors.is_empty() { Ok(ControlPlane { parts: self }) } else { Err(BuildErrors(errors)) }
    }
}

/// A composed control plane that is not running yet. Many may run in one process.
#[derive(Debug)]
pub struct ControlPlane {
    parts: Builder,
}

impl ControlPlane {
    /// A composition without parts.
    pub fn builder() -> Builder {
        Builder {
            store: None,
            registry: Registry::new(),
            controllers: Vec::new(),
            admission: Vec::new(),
            virtuals: Vec::new(),
            layers: Vec::new(),
            nodes: Vec::new(),
            https: None,
            authorizer: None,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(Entropy::from_system()),
            keys: None,
            service_cidr: None,
            service_proxy: false,
            errors: Vec::new(),
        }
    }

    /// Starts everything, in order: keys, API server, HTTPS, controllers, nodes, Service proxy. The API answers when it returns.
    ///
    /// # Errors
    /// The part that failed and why; what had started is stopped again.
    ///
    /// # Cancel safety
    /// Dropping the call stops what had started.
    pub async fn start(self) -> Result<RunningPlane, StartError> {
        start(self.parts).await
    }
}
