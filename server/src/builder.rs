//! How a host composes an API server.

use crate::admission::Admission;
use crate::janitor::Keep;
use crate::keys::ResourceId;
use crate::ports::{NodeConnections, TokenIssuer, VirtualResource};
use crate::server::ApiServer;
use crate::tls::FrontProxy;
use kubewright_core::{ApiError, Entropy, KindDescriptor, Registry, SharedClock, SystemClock};
use kubewright_store::Store;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// The range of cluster IPs where none is given: loopback addresses, which answer on one machine without any routes.
pub const DEFAULT_SERVICE_CIDR: &str = "127.96.0.0/16";

/// What an [`ApiServer`] is made of. Every part but the store has a default.
pub struct ApiServerBuilder {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Registry,
    pub(crate) clashes: Vec<String>,
    pub(crate) clock: SharedClock,
    pub(crate) entropy: Arc<Entropy>,
    pub(crate) nodes: NodeConnections,
    pub(crate) admission: Vec<Arc<dyn Admission>>,
    pub(crate) virtuals: Vec<Arc<dyn VirtualResource>>,
    pub(crate) tokens: Option<Arc<dyn TokenIssuer>>,
    pub(crate) service_cidr: String,
    pub(crate) node_ports: RangeInclusive<u16>,
    pub(crate) advertise: Option<(IpAddr, u16)>,
    pub(crate) window_events_max: usize,
    pub(crate) builtin_admission: bool,
    pub(crate) ca_certificate: Option<String>,
    pub(crate) keep: Keep,
    pub(crate) in_memory: Vec<ResourceId>,
    pub(crate) front_proxy: Option<FrontProxy>,
}

impl ApiServerBuilder {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        ApiServerBuilder {
            store,
            registry: Registry::new(),
            clashes: Vec::new(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(Entropy::from_system()),
            nodes: NodeConnections::default(),
            admission: Vec::new(),
            virtuals: Vec::new(),
            tokens: None,
            service_cidr: DEFAULT_SERVICE_CIDR.to_owned(),
            node_ports: 30000..=32767,
            advertise: None,
            window_events_max: 8192,
            builtin_admission: true,
            ca_certificate: None,
            keep: Keep::default(),
            in_memory: Vec::new(),
            front_proxy: None,
        }
    }

    /// Serves the kinds of this registry, beside those added with [`ApiServerBuilder::kind`].
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        for kind in registry.iter() {
            self = self.kind(KindDescriptor::clone(kind));
        }
        self
    }

    /// Serves one more kind.
    #[must_use]
    pub fn kind(mut self, kind: KindDescriptor) -> Self {
        if let Err(taken) = self.registry.insert(kind) {
            self.clashes.push(format!("{}/{} {}", taken.group, taken.version, taken.plural));
        }
        self
    }

    /// Where the time comes from; the wall clock by default.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Where uids and generated names come from; the operating system's randomness by default.
    #[must_use]
    pub fn entropy(mut self, entropy: Arc<Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// The node agents that logs, exec, attach and port-forward go to; the map may be filled later.
    #[must_use]
    pub fn nodes(mut self, nodes: NodeConnections) -> Self {
        self.nodes = nodes;
        self
    }

    /// Adds an admission plugin, after the built-in ones.
    #[must_use]
    pub fn admission(mut self, plugin: Arc<dyn Admission>) -> Self {
        self.admission.push(plugin);
        self
    }

    /// Leaves the built-in admission plugins out: for tests and for planes that are no Kubernetes.
    #[must_use]
    pub fn without_builtin_admission(mut self) -> Self {
        self.builtin_admission = false;
        self
    }

    /// Serves a resource that is computed instead of stored.
    #[must_use]
    pub fn virtual_resource(mut self, resource: Arc<dyn VirtualResource>) -> Self {
        self.virtuals.push(resource);
        self
    }

    /// Who issues the tokens of `serviceaccounts/token`; without one the subresource answers 501.
    #[must_use]
    pub fn token_issuer(mut self, tokens: Arc<dyn TokenIssuer>) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// The range of cluster IPs, `127.96.0.0/16` by default; two with a comma between, one of each family, for Services of both.
    #[must_use]
    pub fn service_cidr(mut self, cidr: &str) -> Self {
        cidr.clone_into(&mut self.service_cidr);
        self
    }

    /// The range of node ports, 30000 to 32767 by default.
    #[must_use]
    pub fn node_ports(mut self, ports: RangeInclusive<u16>) -> Self {
        self.node_ports = ports;
        self
    }

    /// The address under which pods reach this server, for the endpoints of the `kubernetes` Service. One that is not known yet can
    /// be told later, by [`ApiServer::advertise`].
    #[must_use]
    pub fn advertise(mut self, address: IpAddr, port: u16) -> Self {
        self.advertise = Some((address, port));
        self
    }

    /// The certificate authority in PEM that `kube-root-ca.crt` ConfigMaps hold in every namespace.
    #[must_use]
    pub fn ca_certificate(mut self, pem: &str) -> Self {
        self.ca_certificate = Some(pem.to_owned());
        self
    }

    /// Whom the server is to API servers behind it (APIServices); it tells them by the ConfigMap
    /// `kube-system/extension-apiserver-authentication`. Without it they have no reason to believe on whose behalf it asks.
    #[must_use]
    pub fn front_proxy(mut self, identity: FrontProxy) -> Self {
        self.front_proxy = Some(identity);
        self
    }

    /// Keeps the objects of this resource (its group and plural) in memory only, beside a store on disk: their writes cost no flush, and they
    /// are gone when the store is closed. Clients can't tell: the revisions are of one order, and after a restart watches answer 410, so that
    /// they list anew. Good for what is written all the time and soon worthless: leases, events.
    ///
    /// [`ApiServerBuilder::build`] fails where the store is shared with other processes.
    #[must_use]
    pub fn in_memory(mut self, group: &str, resource: &str) -> Self {
        self.in_memory.push(ResourceId { group: group.into(), resource: resource.into() });
        self
    }

    /// How long events are kept after their last write; an hour by default, zero for ever. A store that lets keys expire by itself (etcd) is
    /// told to.
    #[must_use]
    pub fn event_ttl(mut self, ttl: Duration) -> Self {
        self.keep.events = ttl;
        self
    }

    /// How long the store's history is kept at least; five minutes by default, zero for as long as the store has room.
    #[must_use]
    pub fn history(mut self, keep: Duration) -> Self {
        self.keep.history = keep;
        self
    }

    /// How many recent events of each resource a watch can start from, 8192 by default.
    #[must_use]
    pub fn watch_window(mut self, events_max: usize) -> Self {
        self.window_events_max = events_max.max(1);
        self
    }

    /// Loads what the store holds and starts serving.
    ///
    /// # Errors
    /// Every mistake of the composition in one message, or the store's error.
    pub async fn build(self) -> Result<ApiServer, ApiError> {
        ApiServer::start(self).await
    }
}
