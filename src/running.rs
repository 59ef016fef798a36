//! A running plane: the start in order, the handles, and the end in reverse.

use crate::error::StartError;
use crate::nodes::NodeSetup;
use crate::parts::ApiService;
use crate::plane::{Builder, PlaneContext};
use crate::service_proxy;
use kubewright_client::{Client, system_user};
use kubewright_core::{ApiError, SharedClock, UserInfo};
use kubewright_node::NodeHub;
use kubewright_reconcile::{Context, Informers, Manager};
use kubewright_server::auth::{Access, SigningKey, authenticated};
use kubewright_server::http::HttpService;
use kubewright_server::tls::{CertificateAuthority, Kubeconfig, KubeconfigCredentials, Server, TlsError};
use kubewright_server::{ApiServer, DEFAULT_SERVICE_CIDR, NodeConnections};
use kubewright_store::Store;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::BoxCloneSyncService;

/// How long each stage of the shutdown may take before the next one begins.
const STAGE_TIMEOUT: Duration = Duration::from_secs(15);
/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// Tasks that are ended together.
#[derive(Default)]
struct Stage {
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Stage {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    async fn end(&self, what: &str) {
        self.cancel.cancel();
        self.tasks.close();
        if tokio::time::timeout(STAGE_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("{what} did not end in time");
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A plane that runs. Dropping it cancels all its tasks; [`RunningPlane::shutdown`] ends it in order.
pub struct RunningPlane {
    server: ApiServer,
    service: ApiService,
    access: Access,
    client: Client,
    informers: Informers,
    store: Arc<dyn Store>,
    authority: Option<CertificateAuthority>,
    address: Option<SocketAddr>,
    clock: SharedClock,
    https: Stage,
    nodes: Stage,
    controllers: Stage,
}

impl fmt::Debug for RunningPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningPlane").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Starts the parts in order.
pub(crate) async fn start(mut parts: Builder) -> Result<RunningPlane, StartError> {
    let authority = authority(&parts).map_err(|e| StartError::new("keys", e))?;
    // The socket comes first, so that a port in use is told before anything is touched.
    let bound = bind(&parts, authority.as_ref()).await.map_err(|e| StartError::new("HTTPS", e))?;
    let address = bound.as_ref().map(Server::local_addr);
    let connections = NodeConnections::new();
    let access = access(&parts).map_err(|e| StartError::new("keys", e))?;
    let server = api_server(&mut parts, &access, &connections, authority.as_ref(), address).await?;
    access.start(&server).await.map_err(|e| StartError::new("access rules", e))?;
    let mut service: ApiService = BoxCloneSyncService::new(access.authorized(server.clone()));
    for layer in parts.layers.drain(..) {
        service = layer(service);
    }
    let client = Client::new(service.clone(), system_user("admin", &[MASTERS]));
    let informers = Informers::with_entropy(
        client.as_user(system_user("kube-controller-manager", &[MASTERS])),
        parts.entropy.clone(),
    );
    let store = parts.store.clone().ok_or_else(|| StartError::new("store", "none was given"))?;
    let plane = RunningPlane {
        https: Stage::default(),
        nodes: Stage::default(),
        controllers: Stage::default(),
        clock: parts.clock.clone(),
        server,
        service,
        access,
        client,
        informers,
        store,
        authority,
        address,
    };
    if let Some(bound) = bound {
        let cancel = plane.https.cancel.clone();
        let service = plane.access.http(plane.service.clone()).closing(cancel.clone());
        plane.https.spawn(bound.serve(service, cancel));
    }
    plane.start_controllers(&mut parts)?;
    plane.start_nodes(&mut parts, &connections)?;
    Ok(plane)
}

fn authority(parts: &Builder) -> Result<Option<CertificateAuthority>, TlsError> {
    match (&parts.https, &parts.keys) {
        (None, None) => Ok(None),
        (_, Some(folder)) => CertificateAuthority::load_or_generate(folder, &*parts.clock).map(Some),
        (Some(_), None) => CertificateAuthority::generate(&*parts.clock).map(Some),
    }
}

async fn bind(parts: &Builder, authority: Option<&CertificateAuthority>) -> Result<Option<Server>, TlsError> {
    let (Some(https), Some(authority)) = (&parts.https, authority) else { return Ok(None) };
    let more: Vec<&str> = https.names.iter().map(String::as_str).collect();
    let cidr = parts.service_cidr.as_deref().unwrap_or(DEFAULT_SERVICE_CIDR);
    let mut names = CertificateAuthority::server_names(first_address(cidr), &more);
    let own = https.listen.ip().to_string();
    if !https.listen.ip().is_unspecified() && !names.contains(&own) {
        names.push(own);
    }
    let serving = match &parts.keys {
        Some(folder) => authority.serving_certificate(folder, &names, &*parts.clock)?,
        None => authority.issue_server(&names, &*parts.clock)?,
    };
    Server::bind(https.listen, authority.server_config(&serving)?).await.map(Some)
}

/// The cluster IP of the API server's own Service: the first one of the range.
fn first_address(cidr: &str) -> Option<IpAddr> {
    let (base, bits) = cidr.split_once('/')?;
    let (base, bits): (Ipv4Addr, u32) = (base.parse().ok()?, bits.parse().ok().filter(|b| *b <= 32)?);
    let network = u32::from(base) & u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    Some(Ipv4Addr::from(network.checked_add(1)?).into())
}

fn access(parts: &Builder) -> Result<Access, TlsError> {
    let key = match &parts.keys {
        Some(folder) => SigningKey::load_or_generate(&folder.join("service-accounts.key"))?,
        None => SigningKey::on_demand(),
    };
    Ok(match &parts.authorizer {
        None => Access::rbac(key, parts.clock.clone()),
        Some(authorizer) => Access::with_authorizer(key, parts.clock.clone(), authorizer.clone()),
    })
}

async fn api_server(
    parts: &mut Builder,
    access: &Access,
    connections: &NodeConnections,
    authority: Option<&CertificateAuthority>,
    address: Option<SocketAddr>,
) -> Result<ApiServer, StartError> {
    let store = parts.store.clone().ok_or_else(|| StartError::new("store", "none was given"))?;
    let mut builder = ApiServer::builder(store)
        .registry(std::mem::take(&mut parts.registry))
        .clock(parts.clock.clone())
        .entropy(parts.entropy.clone())
        .nodes(connections.clone());
    if let Some(address) = address {
        builder = builder.advertise(address.ip(), address.port());
    }
    if let Some(authority) = authority {
        builder = builder.ca_certificate(authority.certificate_pem());
    }
    if let Some(cidr) = &parts.service_cidr {
        builder = builder.service_cidr(cidr);
    }
    for plugin in parts.admission.drain(..) {
        builder = builder.admission(plugin);
    }
    for resource in parts.virtuals.drain(..) {
        builder = builder.virtual_resource(resource);
    }
    access.install(builder).build().await.map_err(|e| StartError::new("API server", e))
}

impl RunningPlane {
    fn start_controllers(&self, parts: &mut Builder) -> Result<(), StartError> {
        let cx = PlaneContext {
            ca_pem: self.authority.as_ref().map(|a| a.certificate_pem().to_owned()),
            entropy: parts.entropy.clone(),
            clock: parts.clock.clone(),
        };
        let mut manager = Manager::new(Context::with(
            self.client
                .as_user(system_user("kube-controller-manager", &[MASTERS]))
                .with_user_agent("kube-controller-manager"),
            self.informers.clone(),
            parts.clock.clone(),
            parts.entropy.clone(),
        ));
        for late in parts.controllers.drain(..) {
            manager = manager.with_all((late.make)(&cx));
        }
        let cancel = self.controllers.cancel.clone();
        self.controllers.spawn(async move {
            if let Err(e) = manager.run(cancel).await {
                tracing::error!(error = %e, "the controllers ended");
            }
        });
        Ok(())
    }

    fn start_nodes(&self, parts: &mut Builder, connections: &NodeConnections) -> Result<(), StartError> {
        if parts.service_proxy {
            self.nodes.spawn(service_proxy::run(self.informers.clone(), self.nodes.cancel.clone()));
        }
        if parts.nodes.is_empty() {
            return Ok(());
        }
        let hub = NodeHub::new(&self.informers, parts.clock.clone());
        for part in parts.nodes.drain(..) {
            let setup = NodeSetup {
                client: self
                    .client
                    .as_user(system_user(&format!("node:{}", part.name), &["system:nodes"]))
                    .with_user_agent("kubelet"),
                name: part.name.clone(),
                hub: hub.clone(),
                clock: parts.clock.clone(),
                entropy: parts.entropy.clone(),
            };
            let agent = Arc::new((part.make)(setup).map_err(|e| StartError::new("node", e))?);
            connections.insert(&part.name, agent.clone());
            let cancel = self.nodes.cancel.clone();
            self.nodes.spawn(async move { agent.run(cancel).await });
        }
        Ok(())
    }

    /// A client in process, as an administrator.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A client in process under another identity.
    pub fn client_as(&self, user: UserInfo) -> Client {
        self.client.as_user(user)
    }

    /// The informers that the controllers share.
    pub fn informers(&self) -> &Informers {
        &self.informers
    }

    /// The API as a service over [`kubewright_core::ApiRequest`], layers and authorization included.
    pub fn service(&self) -> ApiService {
        self.service.clone()
    }

    /// The API as a service over HTTP requests, for `kube::Client::new` and the like: requests without credentials are `name`'s.
    pub fn http_service(&self, name: &str, groups: &[&str]) -> HttpService<ApiService> {
        self.access.http(self.service.clone()).identity(authenticated(name, groups))
    }

    /// Where HTTPS is served.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// A kubeconfig for an administrator, with a client certificate of its own; `None` without HTTPS.
    ///
    /// # Errors
    /// Where the certificate can't be made.
    pub fn admin_kubeconfig(&self) -> Result<Option<Kubeconfig>, TlsError> {
        let (Some(authority), Some(address)) = (&self.authority, self.address) else { return Ok(None) };
        let certificate = authority.issue_client("kubernetes-admin", &[MASTERS], &*self.clock)?;
        let host = if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { host(address) };
        Ok(Some(Kubeconfig {
            cluster: "kubewright".to_owned(),
            server: format!("https://{host}:{}", address.port()),
            certificate_authority_pem: authority.certificate_pem().to_owned(),
            user: "kubernetes-admin".to_owned(),
            credentials: KubeconfigCredentials::Certificate(certificate),
            namespace: None,
        }))
    }

    /// Ends everything in reverse: no more requests from outside, nodes, controllers, API server, store.
    ///
    /// # Errors
    /// The store's, where its last flush fails.
    ///
    /// # Cancel safety
    /// Dropping the call cancels what is left at once.
    pub async fn shutdown(self) -> Result<(), ApiError> {
        self.https.end("HTTPS").await;
        self.nodes.end("the nodes").await;
        self.controllers.end("the controllers").await;
        self.informers.shutdown().await;
        self.server.shutdown().await;
        self.store.close().await.map_err(ApiError::internal)
    }
}

fn host(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    }
}
