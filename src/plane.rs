//! The composition: what was added, the checks, and the start.

use crate::Https;
use crate::checks;
use crate::error::{BuildError, BuildErrors, StartError};
#[cfg(feature = "node")]
use crate::nodes::NodePart;
use crate::parts::{ApiService, Part};
use crate::running::{RunningPlane, start};
use kubewright_core::{Entropy, Registry, SharedClock, SystemClock};
use kubewright_server::VirtualResource;
use kubewright_server::admission::Admission;
use kubewright_server::audit::Audit;
use kubewright_server::auth::{Access, Authorizer};
use kubewright_server::flow::MaxInFlight;
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
    /// The authority itself, which signs.
    pub authority: Option<Arc<kubewright_server::tls::CertificateAuthority>>,
    /// Randomness for names.
    pub entropy: Arc<Entropy>,
    /// The time.
    pub clock: SharedClock,
}

#[cfg(feature = "reconcile")]
type MakeController = Box<dyn FnOnce(&PlaneContext) -> Option<kubewright_reconcile::Controller> + Send>;
type ChangeAccess =
    Box<dyn FnOnce(Access) -> Result<Access, Box<dyn std::error::Error + Send + Sync>> + Send>;
type MakeAdmission = Box<dyn FnOnce(Arc<dyn Authorizer>) -> Arc<dyn Admission> + Send>;
type MakeLayer = Box<dyn FnOnce(ApiService) -> ApiService + Send>;

/// A controller that is made at the start.
#[cfg(feature = "reconcile")]
pub(crate) struct LateController {
    pub(crate) name: &'static str,
    /// The kinds that it follows, as far as they are known before.
    pub(crate) kinds: Vec<kubewright_core::GroupVersionResource>,
    pub(crate) make: MakeController,
}

/// Collects the parts of a control plane. Parts are added with [`Builder::with`]; see [`crate::parts`].
pub struct Builder {
    pub(crate) store: Option<Arc<dyn Store>>,
    pub(crate) registry: Registry,
    #[cfg(feature = "reconcile")]
    pub(crate) controllers: Vec<LateController>,
    pub(crate) admission: Vec<Arc<dyn Admission>>,
    pub(crate) late_admission: Vec<MakeAdmission>,
    pub(crate) virtuals: Vec<Arc<dyn VirtualResource>>,
    pub(crate) layers: Vec<MakeLayer>,
    #[cfg(feature = "node")]
    pub(crate) nodes: Vec<NodePart>,
    pub(crate) https: Option<Https>,
    pub(crate) authorizer: Option<Arc<dyn Authorizer>>,
    pub(crate) access: Vec<ChangeAccess>,
    #[cfg(feature = "encryption")]
    pub(crate) encryption: Vec<kubewright_server::EncryptionRule>,
    #[cfg(feature = "encryption")]
    pub(crate) encryption_file: Option<PathBuf>,
    pub(crate) audit: Option<Audit>,
    pub(crate) flow_control: bool,
    pub(crate) in_flight: Option<MaxInFlight>,
    pub(crate) clock: SharedClock,
    pub(crate) entropy: Arc<Entropy>,
    pub(crate) keys: Option<PathBuf>,
    pub(crate) service_cidr: Option<String>,
    /// Group and plural of what is kept in memory only.
    pub(crate) in_memory: Vec<(String, String)>,
    pub(crate) event_ttl: Option<std::time::Duration>,
    #[cfg(feature = "node")]
    pub(crate) service_proxy: bool,
    /// What there may be one of, as far as it was given.
    given: BTreeSet<&'static str>,
    pub(crate) errors: Vec<BuildError>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.registry.iter().count();
        f.debug_struct("Builder").field("kinds", &kinds).field("errors", &self.errors).finish_non_exhaustive()
    }
}

impl Builder {
    /// Adds a part.
    #[must_use]
    pub fn with(mut self, part: impl Part) -> Self {
        part.add(&mut self);
        self
    }

    /// Notes a part that there may be one of; a second one is a mistake.
    pub(crate) fn once(&mut self, what: &'static str) {
        if !self.given.insert(what) {
            self.errors.push(BuildError::Twice(what));
        }
    }

    /// Checks the composition. Nothing runs yet, and nothing is read or written.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn build(mut self) -> Result<ControlPlane, BuildErrors> {
        let mut errors = std::mem::take(&mut self.errors);
        errors.extend(checks::all(&self));
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
            #[cfg(feature = "reconcile")]
            controllers: Vec::new(),
            admission: Vec::new(),
            late_admission: Vec::new(),
            virtuals: Vec::new(),
            layers: Vec::new(),
            #[cfg(feature = "node")]
            nodes: Vec::new(),
            https: None,
            authorizer: None,
            access: Vec::new(),
            #[cfg(feature = "encryption")]
            encryption: Vec::new(),
            #[cfg(feature = "encryption")]
            encryption_file: None,
            audit: None,
            flow_control: false,
            in_flight: None,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(Entropy::from_system()),
            keys: None,
            service_cidr: None,
            in_memory: Vec::new(),
            event_ttl: None,
            #[cfg(feature = "node")]
            service_proxy: false,
            given: BTreeSet::new(),
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
