//! A running plane: the start in order, the handles, and the end in reverse.

#[cfg(feature = "reconcile")]
mod control;
#[cfg(feature = "encryption")]
mod encrypted;
mod web;

use crate::error::StartError;
use crate::parts::ApiService;
use crate::plane::Builder;
use crate::stage::Stage;
use kubewright_core::{ApiError, SharedClock};
use kubewright_server::audit::Audit;
use kubewright_server::auth::{Access, SigningKey, authenticated};
use kubewright_server::flow::{FlowControl, MaxInFlight};
use kubewright_server::http::HttpService;
use kubewright_server::tls::{
    CertificateAuthority, FrontProxy, Kubeconfig, KubeconfigCredentials, Server, TlsError,
};
use kubewright_server::{ApiServer, NodeConnections};
use kubewright_store::Store;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tower::Layer;
use tower::util::BoxCloneSyncService;
use web::{Web, configured};

/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// A plane that runs. Dropping it cancels all its tasks; [`RunningPlane::shutdown`] ends it in order.
pub struct RunningPlane {
    server: ApiServer,
    service: ApiService,
    access: Access,
    #[cfg(feature = "client")]
    client: kubewright_client::Client,
    #[cfg(feature = "reconcile")]
    control: control::Control,
    store: Arc<dyn Store>,
    authority: Option<Arc<CertificateAuthority>>,
    address: Option<SocketAddr>,
    clock: SharedClock,
    https: Stage,
    audit: Option<Audit>,
    #[cfg(feature = "encryption")]
    encrypted: encrypted::Encrypted,
    shutdown_delay: Duration,
}

impl fmt::Debug for RunningPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningPlane").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Starts the parts in order.
pub(crate) async fn start(mut parts: Builder) -> Result<RunningPlane, StartError> {
    #[cfg(feature = "encryption")]
    let encrypted = encrypted::wrap(&mut parts)?;
    let authority = authority(&parts).map_err(|e| StartError::new("keys", e))?.map(Arc::new);
    // The socket comes first, so that a port in use is told before anything is touched.
    let failed = |e: TlsError| StartError::new("HTTPS", e);
    let limits = parts.https.as_ref().map(|h| h.limits).unwrap_or_default();
    let web = Web::new(&parts, authority.as_ref()).map_err(failed)?;
    let bound = match &web {
        Some(web) => Some(web.bind(limits).await.map_err(failed)?),
        None => None,
    };
    let address = bound.as_ref().map(Server::local_addr);
    let connections = NodeConnections::new();
    let mut access = access(&parts).map_err(|e| StartError::new("keys", e))?;
    for change in parts.access.drain(..) {
        access = change(access).map_err(|e| StartError::new("authentication", e))?;
    }
    let flow = parts.flow_control.then(|| FlowControl::new(parts.clock.clone()));
    let server =
        api_server(&mut parts, &access, &connections, authority.as_deref(), address, flow.as_ref()).await?;
    access.start(&server).await.map_err(|e| StartError::new("access rules", e))?;
    let mut service: ApiService = BoxCloneSyncService::new(access.authorized(server.clone()));
    for layer in parts.layers.drain(..) {
        service = layer(service);
    }
    service = bounded(&mut parts, service, &server, flow.as_ref()).await?;
    let audit = parts.audit.take();
    if let Some(audit) = &audit {
        audit.start(&server);
        service = BoxCloneSyncService::new(audit.layer(service));
    }
    service = BoxCloneSyncService::new(server.meter().layer(service));
    #[cfg(feature = "client")]
    let client =
        kubewright_client::Client::new(service.clone(), kubewright_client::system_user("admin", &[MASTERS]));
    let store = parts.store.clone().ok_or_else(|| StartError::new("store", "none was given"))?;
    let https = Stage::default();
    if let Some(bound) = bound {
        let service = access.http(service.clone()).closing(https.cancel.clone());
        let service = configured(service, parts.https.as_ref(), audit.as_ref())?;
        https.spawn(bound.serve(service, https.cancel.clone()));
        if let Some(web) = web {
            https.spawn(web.renew(https.cancel.clone()));
        }
    }
    #[cfg(feature = "reconcile")]
    let control = control::Control::start(&mut parts, &client, &connections, authority.as_ref(), &server)?;
    Ok(RunningPlane {
        #[cfg(feature = "client")]
        client,
        #[cfg(feature = "reconcile")]
        control,
        clock: parts.clock.clone(),
        server,
        service,
        access,
        store,
        authority,
        address,
        https,
        audit,
        #[cfg(feature = "encryption")]
        encrypted,
        shutdown_delay: parts.https.map_or(Duration::ZERO, |h| h.shutdown_delay),
    })
}

/// The limit of requests at once: priority and fairness, or plain numbers. A plane that only its own process reaches has none.
async fn bounded(
    parts: &mut Builder,
    service: ApiService,
    server: &ApiServer,
    flow: Option<&FlowControl>,
) -> Result<ApiService, StartError> {
    if let Some(flow) = flow {
        flow.start(server).await.map_err(|e| StartError::new("flow control", e))?;
        return Ok(BoxCloneSyncService::new(flow.layer(service)));
    }
    let default = parts.https.is_some().then(MaxInFlight::default);
    Ok(match parts.in_flight.take().or(default) {
        Some(limit) => BoxCloneSyncService::new(limit.layer(service)),
        None => service,
    })
}

fn authority(parts: &Builder) -> Result<Option<CertificateAuthority>, TlsError> {
    match (&parts.https, &parts.keys) {
        (None, None) => Ok(None),
        (_, Some(folder)) => CertificateAuthority::load_or_generate(folder, &*parts.clock).map(Some),
        (Some(_), None) => CertificateAuthority::generate(&*parts.clock).map(Some),
    }
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
    flow: Option<&FlowControl>,
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
        let folder = parts.keys.as_ref().map(|keys| keys.join("front-proxy"));
        let identity = FrontProxy::issue(folder.as_deref(), &*parts.clock);
        builder = builder.front_proxy(identity.map_err(|e| StartError::new("keys", e))?);
    }
    if let Some(cidr) = &parts.service_cidr {
        builder = builder.service_cidr(cidr);
    }
    for (group, resource) in &parts.in_memory {
        builder = builder.in_memory(group, resource);
    }
    if let Some(ttl) = parts.event_ttl {
        builder = builder.event_ttl(ttl);
    }
    for plugin in parts.admission.drain(..) {
        builder = builder.admission(plugin);
    }
    for make in parts.late_admission.drain(..) {
        builder = builder.admission(make(access.authorizer().clone()));
    }
    for resource in parts.virtuals.drain(..) {
        builder = builder.virtual_resource(resource);
    }
    if let Some(flow) = flow {
        builder = flow.install(builder);
    }
    access.install(builder).build().await.map_err(|e| StartError::new("API server", e))
}

impl RunningPlane {
    /// A client in process, as an administrator.
    #[cfg(feature = "client")]
    pub fn client(&self) -> &kubewright_client::Client {
        &self.client
    }

    /// A client in process under another identity.
    #[cfg(feature = "client")]
    pub fn client_as(&self, user: kubewright_core::UserInfo) -> kubewright_client::Client {
        self.client.as_user(user)
    }

    /// The informers that the controllers share.
    #[cfg(feature = "reconcile")]
    pub fn informers(&self) -> &kubewright_reconcile::Informers {
        self.control.informers()
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
        self.server.begin_shutdown();
        tokio::time::sleep(self.shutdown_delay).await;
        self.https.end("HTTPS").await;
        #[cfg(feature = "reconcile")]
        self.control.end().await;
        self.server.shutdown().await;
        if let Some(audit) = &self.audit {
            audit.shutdown().await;
        }
        #[cfg(feature = "encryption")]
        self.end_encryption().await;
        self.store.close().await.map_err(ApiError::internal)
    }
}

fn host(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    }
}
