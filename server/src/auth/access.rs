//! Authentication and authorization of a plane, composed: what a host needs unless it brings parts of its own.

use super::authenticator::Authenticator;
use super::authorizer::Authorizer;
use super::bearer_tokens::BearerTokens;
use super::bootstrap_tokens::BootstrapTokens;
use super::counts::{AuthenticationCounts, AuthorizationCounts};
use super::front_proxy::FrontProxy;
use super::node::NodeAuthorizer;
use super::objects::ObjectReader;
use super::oidc::{AuthenticationConfiguration, ConfigurationError, Oidc};
use super::rbac::{Escalation, RbacAuthorizer, Union, ensure_bootstrap_policy, keep_aggregated};
use super::reviews::Review;
use super::tokens::{ServiceAccountTokens, SigningKey, TokenBinding};
use super::webhook::{WebhookAuthorizer, WebhookEndpoint, WebhookTokens};
use super::{AuthorizationLayer, Authorized};
use crate::admission::{
    Admission, AdmissionRequest, CertificateApproval, CertificateSigning, CertificateSubjectRestriction,
    NodeRestriction, Operation,
};
use crate::http::HttpService;
use crate::ports::{
    BoundObject, PublishedKeys, ServiceAccountRef, TokenIssuer, VirtualDescriptor, VirtualResource,
};
use crate::{ApiServer, ApiServerBuilder, Reader};
use futures::future::BoxFuture;
use kubewright_core::{
    ApiError, ApiObject, ApiRequest, ApiResponse, GroupVersionResource, Reason, SharedClock, Verb,
};
use serde_json::Value;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;
use tower::Layer;

/// How often the default policy is brought before the start fails.
const POLICY_TRIES_MAX: u32 = 5;
const POLICY_PAUSE: Duration = Duration::from_millis(500);

/// RBAC, the node authorizer, service account tokens and the reviews, wired to one server.
///
/// ```
/// use kubewright_core::{Registry, SystemClock};
/// use kubewright_server::ApiServer;
/// use kubewright_server::auth::{Access, SigningKey};
/// use kubewright_store::MemoryStore;
/// use std::sync::Arc;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let mut registry = Registry::new();
/// for kind in kubewright_core::api::builtin(&Default::default()) {
///     registry.insert(kind).unwrap();
/// }
/// let access = Access::rbac(SigningKey::generate()?, Arc::new(SystemClock));
/// let builder = ApiServer::builder(Arc::new(MemoryStore::new())).registry(registry);
/// let server = access.install(builder).build().await?;
/// access.start(&server).await?;
/// let service = access.authorized(server.clone()); // for clients of the same process
/// let web = access.http(service); // for `tls::Server::serve`
/// # drop(web);
/// # server.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Access {
    reader: Arc<LateReader>,
    authorizer: Arc<dyn Authorizer>,
    escalation: Option<Escalation>,
    tokens: Arc<ServiceAccountTokens>,
    authenticators: Vec<Arc<dyn Authenticator>>,
    anonymous: bool,
    /// The paths that anonymous callers may ask for; all when empty.
    anonymous_paths: Vec<String>,
    front_proxy: Option<FrontProxy>,
    clock: SharedClock,
    /// Keeps aggregated roles written down; ends with the last clone.
    aggregation: Arc<OnceLock<AbortOnDropHandle<()>>>,
    attempts: Arc<AuthenticationCounts>,
    decisions: Arc<AuthorizationCounts>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({:?})", self.tokens)
    }
}

impl Access {
    /// Nodes by the node authorizer, everybody else by RBAC; anonymous callers may ask (RBAC grants them health and version).
    pub fn rbac(key: SigningKey, clock: SharedClock) -> Self {
        let reader = Arc::new(LateReader::default());
        let rbac = Arc::new(RbacAuthorizer::new(reader.clone()));
        let both: Vec<Arc<dyn Authorizer>> =
            vec![Arc::new(NodeAuthorizer::new(reader.clone())), rbac.clone()];
        let authorizer: Arc<dyn Authorizer> = Arc::new(Union::new(both));
        let escalation = Some(Escalation::new(rbac, authorizer.clone()));
        Self::build(reader, key, clock, authorizer, escalation)
    }

    /// Decisions by an authorizer of the host; roles are written unchecked then, for they decide nothing.
    pub fn with_authorizer(key: SigningKey, clock: SharedClock, authorizer: Arc<dyn Authorizer>) -> Self {
        Self::build(Arc::new(LateReader::default()), key, clock, authorizer, None)
    }

    fn build(
        reader: Arc<LateReader>,
        key: SigningKey,
        clock: SharedClock,
        authorizer: Arc<dyn Authorizer>,
        escalation: Option<Escalation>,
    ) -> Self {
        let tokens = Arc::new(ServiceAccountTokens::new(key, reader.clone(), clock.clone()));
        let authenticators: Vec<Arc<dyn Authenticator>> = vec![tokens.clone()];
        Access {
            reader,
            authorizer,
            escalation,
            tokens,
            authenticators,
            anonymous: true,
            anonymous_paths: Vec::new(),
            front_proxy: None,
            clock,
            aggregation: Arc::default(),
            attempts: Arc::default(),
            decisions: Arc::default(),
        }
    }

    /// Asks this authenticator too, after service account tokens.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticators.push(authenticator);
        self
    }

    /// Lets in who shows a bootstrap token: a Secret `bootstrap-token-<id>` of `kube-system`.
    #[must_use]
    pub fn bootstrap_tokens(self) -> Self {
        let tokens = BootstrapTokens::new(self.reader.clone(), self.clock.clone());
        let known = BearerTokens::new(self.clock.clone()).with(tokens);
        self.authenticator(Arc::new(known))
    }

    /// Lets in who shows a token of these issuers, and says where callers without credentials may go.
    ///
    /// # Errors
    /// What is wrong with an issuer.
    pub fn configuration(
        mut self,
        configuration: &AuthenticationConfiguration,
    ) -> Result<Self, ConfigurationError> {
        let mut known = BearerTokens::new(self.clock.clone());
        for issuer in &configuration.issuers {
            known = known.with(Oidc::new(issuer.clone(), self.clock.clone())?);
        }
        if let Some(anonymous) = configuration.anonymous {
            self.anonymous = anonymous;
            self.anonymous_paths.clone_from(&configuration.anonymous_paths);
        }
        Ok(self.authenticator(Arc::new(known)))
    }

    /// Lets in whom a webhook knows by the bearer token; it is asked after all that were added before.
    #[must_use]
    pub fn webhook_tokens(self, endpoint: WebhookEndpoint) -> Self {
        let tokens = WebhookTokens::new(endpoint, self.clock.clone());
        let known = BearerTokens::new(self.clock.clone()).with(tokens);
        self.authenticator(Arc::new(known))
    }

    /// Asks a webhook about what those before have no opinion on.
    #[must_use]
    pub fn webhook_authorizer(self, endpoint: WebhookEndpoint) -> Self {
        let webhook = WebhookAuthorizer::new(endpoint, self.clock.clone());
        self.and_authorizer(Arc::new(webhook))
    }

    /// Asks this authorizer too, about what those before have no opinion on.
    #[must_use]
    pub fn and_authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizer = Arc::new(Union::new(vec![self.authorizer, authorizer]));
        self
    }

    /// Believes the user that a front proxy names in headers; [`crate::tls::Server::front_proxies`] says whose certificates are theirs.
    #[must_use]
    pub fn front_proxy(mut self, proxy: FrontProxy) -> Self {
        self.front_proxy = Some(proxy);
        self
    }

    /// Answers callers without credentials with 401.
    #[must_use]
    pub fn without_anonymous(mut self) -> Self {
        self.anonymous = false;
        self
    }

    /// Adds the reviews, the token issuer and the check of role writes to a server that is being composed.
    #[must_use]
    pub fn install(&self, mut builder: ApiServerBuilder) -> ApiServerBuilder {
        for review in Review::all(&self.authorizer, Some(&self.tokens), &self.authenticators) {
            builder = builder.virtual_resource(Arc::new(review));
        }
        if let Some(escalation) = &self.escalation {
            let authorizer = &self.authorizer;
            builder = builder
                .admission(Arc::new(NodeRestriction::new(authorizer.clone())))
                .admission(Arc::new(CertificateApproval::new(authorizer.clone())))
                .admission(Arc::new(CertificateSigning::new(authorizer.clone())))
                .admission(Arc::new(CertificateSubjectRestriction))
                .admission(Arc::new(escalation.clone()));
        }
        builder.token_issuer(self.tokens.clone())
    }

    /// Reads from this server from now on. Where RBAC decides, brings the default roles and bindings into it, and keeps the rules of
    /// roles that aggregate others written down until the last clone of this is dropped.
    ///
    /// # Errors
    /// The server's.
    pub async fn start(&self, server: &ApiServer) -> Result<(), ApiError> {
        // A second start with the same server changes nothing.
        if self.reader.0.set(server.reader().clone()).is_ok() {
            self.authenticators.iter().for_each(|a| a.started(server));
            server.add_metrics(self.attempts.clone());
            server.add_metrics(self.decisions.clone());
        }
        server.set_authorizer(self.authorizer.clone());
        if self.escalation.is_some() {
            bring_policy(server).await?;
            let server = server.clone();
            self.aggregation.get_or_init(|| AbortOnDropHandle::new(tokio::spawn(keep_aggregated(server))));
        }
        Ok(())
    }

    /// A service that is called only for what its users may do.
    pub fn authorized<S>(&self, service: S) -> Authorized<S> {
        AuthorizationLayer::new(self.authorizer.clone()).counting(self.decisions.clone()).layer(service)
    }

    /// The HTTP face of a service that is [`Access::authorized`] already.
    pub fn http<S>(&self, service: S) -> HttpService<S> {
        let mut start = HttpService::new(service)
            .anonymous(self.anonymous)
            .anonymous_paths(self.anonymous_paths.clone())
            .counting(self.attempts.clone())
            .impersonation(self.authorizer.clone());
        if let Some(proxy) = &self.front_proxy {
            start = start.front_proxy(proxy.clone());
        }
        self.authenticators.iter().fold(start, |http, a| http.authenticator(a.clone()))
    }

    /// The authorizer, for further layers.
    pub fn authorizer(&self) -> &Arc<dyn Authorizer> {
        &self.authorizer
    }

    /// The signer and checker of service account tokens.
    pub fn tokens(&self) -> &Arc<ServiceAccountTokens> {
        &self.tokens
    }
}

/// Brings the default policy; a loaded machine, or a store that comes and goes, gets a few more tries.
async fn bring_policy(server: &ApiServer) -> Result<(), ApiError> {
    let mut tries = 1;
    loop {
        match ensure_bootstrap_policy(server.clone()).await {
            Err(e) if tries < POLICY_TRIES_MAX && is_passing(e.reason()) => tries += 1,
            other => return other,
        }
        tokio::time::sleep(POLICY_PAUSE).await;
    }
}

fn is_passing(reason: Reason) -> bool {
    matches!(reason, Reason::ServerTimeout | Reason::Timeout | Reason::ServiceUnavailable)
}

/// The reader of a server that is built after those who read.
#[derive(Default)]
struct LateReader(OnceLock<Reader>);

impl LateReader {
    fn reader(&self) -> Result<&Reader, ApiError> {
        self.0.get().ok_or_else(|| ApiError::unavailable("the server is still starting"))
    }
}

impl ObjectReader for LateReader {
    fn get(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ApiObject>>, ApiError> {
        self.reader()?.get(resource, namespace, name)
    }

    fn list(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
    ) -> Result<Vec<Arc<ApiObject>>, ApiError> {
        self.reader()?.list(resource, namespace)
    }

    fn changed_at(&self, resource: &GroupVersionResource) -> Result<u64, ApiError> {
        self.reader()?.changed_at(resource)
    }

    fn pods_on(&self, node: &str) -> Result<Vec<Arc<ApiObject>>, ApiError> {
        self.reader()?.pods_on(node)
    }
}

impl VirtualResource for Review {
    fn descriptor(&self) -> VirtualDescriptor {
        let kind = self.kind();
        VirtualDescriptor {
            group: kind.group().into(),
            version: "v1".into(),
            plural: kind.plural().into(),
            singular: kind.kind().to_lowercase().into(),
            kind: kind.kind().into(),
            namespaced: kind == super::ReviewKind::LocalSubjectAccess,
            verbs: vec![Verb::Create],
        }
    }

    fn call(&self, request: ApiRequest) -> BoxFuture<'_, Result<ApiResponse, ApiError>> {
        Box::pin(self.answer(request))
    }
}

impl TokenIssuer for ServiceAccountTokens {
    fn issue(
        &self,
        account: ServiceAccountRef,
        bound: Option<BoundObject>,
        request: Value,
    ) -> BoxFuture<'_, Result<Value, ApiError>> {
        let bound = bound.map(|b| TokenBinding { kind: b.kind, name: b.name, uid: b.uid, node: b.node });
        let answer =
            self.issue_token(&account.namespace, &account.name, &account.uid, bound.as_ref(), request);
        Box::pin(std::future::ready(answer))
    }

    fn published(&self) -> Result<Option<PublishedKeys>, ApiError> {
        let issuer = self.issuer_name().to_owned();
        Ok(Some(PublishedKeys { issuer, keys: self.key_set()? }))
    }
}

impl Admission for Escalation {
    fn name(&self) -> &'static str {
        "RBAC"
    }

    fn mutates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        request.resource.group == "rbac.authorization.k8s.io"
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let written = matches!(request.operation, Operation::Create | Operation::Update);
            let (true, true, Some(object)) =
                (written, request.resource.group == "rbac.authorization.k8s.io", object)
            else {
                return Ok(());
            };
            let resource = request.resource.resource.as_str();
            self.check(request.user, resource, request.namespace, request.name, object, request.old).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::authenticated;
    use http_body_util::{BodyExt, Full};
    use kubewright_core::{Registry, SystemClock};
    use kubewright_store::MemoryStore;
    use serde_json::json;
    use tower::ServiceExt;

    async fn plane() -> (ApiServer, Access) {
        let mut registry = Registry::new();
        for kind in kubewright_core::api::builtin(&Default::default()) {
            registry.insert(kind).unwrap();
        }
        let access = Access::rbac(SigningKey::generate().unwrap(), Arc::new(SystemClock));
        let builder = ApiServer::builder(Arc::new(MemoryStore::new())).registry(registry);
        let server = access.install(builder).build().await.unwrap();
        access.start(&server).await.unwrap();
        access.start(&server).await.unwrap();
        (server, access)
    }

    /// Sends JSON as a user (as root over impersonation), gives status code and body.
    async fn send(
        service: &HttpService<Authorized<ApiServer>>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (u16, Value) {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    #[tokio::test]
    async fn a_plane_lets_in_who_may() {
        let (server, access) = plane().await;
        let root = access
            .http(access.authorized(server.clone()))
            .identity(authenticated("root", &["system:masters"]));
        let web = access.http(access.authorized(server.clone()));
        let check = |got: (u16, Value), code: u16, pointer: &str, want: Value| {
            assert_eq!((got.0, got.1.pointer(pointer)), (code, Some(&want)), "{}", got.1);
        };
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let got = send(&web, "GET", "/api/v1/namespaces/default/pods", &[], Value::Null).await;
        let message = "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
        check(got, 403, "/message", json!(message));
        let got = send(&root, "GET", &format!("{rbac}/clusterroles/admin"), &[], Value::Null).await;
        assert!(got.1["rules"].as_array().is_some_and(|r| r.len() > 15), "{}", got.1);

        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
        assert_eq!(send(&root, "POST", "/api/v1/namespaces", &[], namespace).await.0, 201);
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
        let accounts = "/api/v1/namespaces/a/serviceaccounts";
        assert_eq!(send(&root, "POST", accounts, &[], account).await.0, 201);
        let (_, account) = send(&root, "GET", &format!("{accounts}/robot"), &[], Value::Null).await;
        let uid = account["metadata"]["uid"].as_str().unwrap();
        let answer = access.tokens().issue_token("a", "robot", uid, None, json!({"spec": {}})).unwrap();
        let bearer = format!("Bearer {}", answer["status"]["token"].as_str().unwrap());
        let robot = [("authorization", bearer.as_str())];

        let whoami = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let got = send(&web, "POST", path, &robot, whoami).await;
        check(got, 201, "/status/userInfo/username", json!("system:serviceaccount:a:robot"));
        let pods = "/api/v1/namespaces/a/pods";
        assert_eq!(send(&web, "GET", pods, &robot, Value::Null).await.0, 403);
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "r"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "a"}],
        });
        let bindings = format!("{rbac}/namespaces/a/rolebindings");
        assert_eq!(send(&root, "POST", &bindings, &[], binding).await.0, 201);
        // Decisions read the cache, which a write reaches a moment after its answer.
        server.reader().consistent().await.unwrap();
        assert_eq!(send(&web, "GET", pods, &robot, Value::Null).await.0, 200);
        let review = json!({"spec": {"user": "system:serviceaccount:a:robot", "resourceAttributes": {
            "verb": "get", "resource": "pods", "namespace": "a"}}});
        let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let why =
            "RBAC: allowed by RoleBinding \"r/a\" of ClusterRole \"admin\" to ServiceAccount \"robot/a\"";
        check(send(&root, "POST", reviews, &[], review).await, 201, "/status/reason", json!(why));
        let counted = {
            let mut text = String::new();
            crate::ports::MetricSource::write(&*access.attempts, &mut text);
            crate::ports::MetricSource::write(&*access.decisions, &mut text);
            text
        };
        for line in [
            "authorization_attempts_total{result=\"allowed\"}",
            "authentication_attempts{result=\"success\"}",
        ] {
            assert!(counted.contains(line), "{line} is not in\n{counted}");
        }
        let roles = format!("{rbac}/namespaces/kube-system/roles/system:controller:token-cleaner");
        assert_eq!(send(&root, "GET", &roles, &[], Value::Null).await.0, 200);

        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}],
        });
        let got = send(&web, "POST", &format!("{rbac}/namespaces/a/roles"), &robot, role).await;
        check(got, 403, "/reason", json!("Forbidden"));
        let as_jane = [("impersonate-user", "jane")];
        assert_eq!(send(&root, "GET", pods, &as_jane, Value::Null).await.0, 403);
        assert_eq!(send(&root, "DELETE", &format!("{accounts}/robot"), &[], Value::Null).await.0, 200);
        server.reader().consistent().await.unwrap();
        assert_eq!(send(&web, "GET", pods, &robot, Value::Null).await.0, 401);
        server.shutdown().await;
    }
}
