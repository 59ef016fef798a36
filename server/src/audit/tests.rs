//! Audit around a real server: what is told at which level, by which backend.

use super::*;
use crate::auth::{Access, SigningKey, StaticTokens, authenticated};
use crate::http::HttpService;
use crate::tls::CertificateAuthority;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use kubewright_core::{Registry, SystemClock};
use kubewright_store::MemoryStore;
use serde_json::{Value, json};
use tower::ServiceExt;

/// Keeps what it is told.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Value>>>);

impl AuditSink for Kept {
    fn name(&self) -> &'static str {
        "kept"
    }

    fn write(&self, events: Vec<Arc<Event>>) -> BoxFuture<'_, Result<(), String>> {
        self.0.lock().extend(events.iter().map(|e| e.to_value()));
        Box::pin(std::future::ready(Ok(())))
    }
}

struct Plane {
    server: ApiServer,
    web: HttpService<Audited<crate::auth::Authorized<ApiServer>>>,
    audit: Audit,
    kept: Kept,
}

async fn plane(policy: Policy) -> Plane {
    let mut registry = Registry::new();
    for kind in kubewright_core::api::builtin(&Default::default()) {
        registry.insert(kind).unwrap();
    }
    let tokens = StaticTokens::new()
        .with("root", authenticated("root", &["system:masters"]))
        .with("jane", authenticated("jane", &[]));
    let access = Access::rbac(SigningKey::on_demand(), Arc::new(SystemClock)).authenticator(Arc::new(tokens));
    let builder = ApiServer::builder(Arc::new(MemoryStore::new())).registry(registry);
    let server = access.install(builder).build().await.unwrap();
    access.start(&server).await.unwrap();
    let kept = Kept::default();
    let audit = Audit::new(policy, Arc::new(SystemClock)).sink(kept.clone(), Delivery::blocking());
    audit.start(&server);
    let web = access.http(audit.layer(access.authorized(server.clone()))).audit(audit.clone());
    Plane { server, web, audit, kept }
}

impl Plane {
    async fn send(
        &self,
        token: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> u16 {
        let mut request = http::Request::builder().method(method).uri(path).header("user-agent", "test/1");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let response = self.web.clone().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        // A watch would never end.
        if !path.contains("watch=") {
            response.into_body().collect().await.unwrap();
        }
        code
    }

    fn told(&self) -> Vec<Value> {
        std::mem::take(&mut *self.kept.0.lock())
    }

    /// What is told of a request that waited for nothing.
    async fn told_soon(&self) -> Vec<Value> {
        while self.kept.0.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        self.told()
    }
}

#[tokio::test]
async fn everything_is_told_in_upstreams_form() {
    let plane = plane(Policy::everything()).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "m-"}, "data": {"a": "b"}});
    let maps = "/api/v1/namespaces/default/configmaps";
    let headers = [("x-forwarded-for", "1.2.3.4"), ("audit-id", "mine")];
    assert_eq!(plane.send("root", "POST", &format!("{maps}?fieldManager=x"), &headers, map).await, 201);
    let told = plane.told();
    let stages: Vec<&str> = told.iter().map(|e| e["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
    let event = &told[1];
    let check =
        |pointer: &str, want: Value| assert_eq!(event.pointer(pointer), Some(&want), "{pointer} {event}");
    check("/kind", json!("Event"));
    check("/apiVersion", json!("audit.k8s.io/v1"));
    check("/level", json!("RequestResponse"));
    check("/auditID", json!("mine"));
    check("/requestURI", json!(format!("{maps}?fieldManager=x")));
    check("/verb", json!("create"));
    check("/user/username", json!("root"));
    check("/sourceIPs", json!(["1.2.3.4"]));
    check("/userAgent", json!("test/1"));
    check("/objectRef/resource", json!("configmaps"));
    check("/objectRef/namespace", json!("default"));
    check("/objectRef/apiVersion", json!("v1"));
    check("/responseStatus", json!({"metadata": {}, "code": 201}));
    check("/requestObject/data/a", json!("b"));
    check("/responseObject/data/a", json!("b"));
    check("/annotations/authorization.k8s.io~1decision", json!("allow"));
    assert!(event["objectRef"]["name"].as_str().unwrap().starts_with("m-"));
    assert!(told[0]["requestObject"].is_null() && told[0]["responseStatus"].is_null());
    assert!(event["stageTimestamp"].as_str().unwrap().len() > 20);

    // Refusals say why; who acts as someone else is told with both names.
    let headers = [("impersonate-user", "joe")];
    assert_eq!(plane.send("root", "DELETE", &format!("{maps}/x"), &headers, Value::Null).await, 403);
    let event = plane.told().pop().unwrap();
    assert_eq!(
        (&event["user"]["username"], &event["impersonatedUser"]["username"]),
        (&json!("root"), &json!("joe"))
    );
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(
        (&event["responseStatus"]["code"], &event["responseStatus"]["reason"]),
        (&json!(403), &json!("Forbidden"))
    );

    // Who is not known at all is told without a name; a body that is no JSON is told as it is.
    assert_eq!(plane.send("forged", "GET", &format!("{maps}/x"), &[], Value::Null).await, 401);
    let told = plane.told_soon().await;
    assert_eq!(
        (told.len(), &told[0]["responseStatus"]["code"], &told[0]["user"]),
        (1, &json!(401), &json!({}))
    );
    assert_eq!(told[0]["objectRef"]["name"], "x");
    assert_eq!(plane.send("root", "POST", maps, &[], json!("no object")).await, 400);
    assert_eq!(plane.told()[1]["requestObject"], "no object");

    // A stream is told when it begins and when it ends.
    assert_eq!(plane.send("root", "GET", &format!("{maps}?watch=1"), &[], Value::Null).await, 200);
    plane.audit.shutdown().await;
    let told = plane.told();
    let stages: Vec<&str> = told.iter().map(|e| e["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn the_policy_decides_what_is_left_out() {
    let plane = plane(Policy::recommended()).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "hidden"}});
    let code = plane.send("root", "POST", "/api/v1/namespaces/default/secrets", &[], secret).await;
    assert_eq!(code, 201);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    plane.send("root", "POST", "/api/v1/namespaces/default/serviceaccounts", &[], account).await;
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    assert_eq!(plane.send("root", "POST", path, &[], token).await, 201);
    plane.send("root", "GET", "/api/v1/namespaces/default/secrets/s", &[], Value::Null).await;
    plane.send("root", "GET", "/readyz", &[], Value::Null).await;
    let told = plane.told();
    let levels: Vec<&str> = told.iter().map(|e| e["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["Metadata", "Request", "Metadata", "Metadata"]);
    let text = serde_json::to_string(&told).unwrap();
    assert!(!text.contains("hidden") && !text.contains("eyJ"), "{text}");
    assert!(!text.contains("managedFields"));
    let metrics = ApiRequest::new(Verb::Get, kubewright_core::Target::Path("/metrics".to_owned()));
    let ResponseBody::Raw { bytes, .. } = plane.server.clone().oneshot(metrics).await.unwrap().body else {
        panic!()
    };
    assert!(String::from_utf8_lossy(&bytes).contains("apiserver_audit_event_total 4"));
    plane.server.shutdown().await;
}

fn event(server: &ApiServer, audit: &Audit, n: usize) -> impl Future<Output = ()> {
    let service = audit.layer(server.clone());
    let mut request = ApiRequest::new(Verb::Get, kubewright_core::Target::Path(format!("/version?n={n}")));
    request.user = authenticated("jane", &[]).into();
    async move {
        let _ = service.oneshot(request).await;
    }
}

#[tokio::test]
async fn a_log_is_turned_over_and_old_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let clock = Arc::new(kubewright_core::ManualClock::new("2026-01-31T10:00:00Z".parse().unwrap()));
    let rotation = Rotation { file_bytes_max: 900, files_max: 2, age_max: Duration::ZERO };
    let server = ApiServer::builder(Arc::new(MemoryStore::new())).build().await.unwrap();
    let sink = LogSink::new(&path, rotation, clock.clone());
    let audit = Audit::new(Policy::everything(), clock.clone()).sink(sink, Delivery::blocking());
    audit.start(&server);
    for n in 0..20 {
        event(&server, &audit, n).await;
        clock.advance(Duration::from_secs(1));
    }
    audit.shutdown().await;
    let mut names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names[0].starts_with("audit-2026-01-31T10-00-"), "{names:?}");
    let last = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = last.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.last().unwrap()["requestURI"], "/version?n=19");
    assert!(std::fs::metadata(folder.path().join(&names[0])).unwrap().len() <= 900);
    server.shutdown().await;
}

#[tokio::test]
async fn a_full_queue_loses_and_counts() {
    /// Never takes anything.
    struct Stuck;
    impl AuditSink for Stuck {
        fn name(&self) -> &'static str {
            "stuck"
        }
        fn write(&self, _: Vec<Arc<Event>>) -> BoxFuture<'_, Result<(), String>> {
            Box::pin(std::future::pending())
        }
    }
    let server = ApiServer::builder(Arc::new(MemoryStore::new())).build().await.unwrap();
    let delivery = Delivery {
        buffer_events_max: 10,
        batch_events_max: 1,
        wait_max: Duration::ZERO,
        ..Delivery::batches()
    };
    let audit = Audit::new(Policy::everything(), Arc::new(SystemClock)).sink(Stuck, delivery);
    audit.start(&server);
    for n in 0..50 {
        event(&server, &audit, n).await;
    }
    let mut text = String::new();
    MetricSource::write(&*audit.0, &mut text);
    let lost: u64 = text.rsplit(' ').next().unwrap().trim().parse().unwrap();
    assert!((85..=90).contains(&lost), "100 events, ten in the queue, one or none on its way: {text}");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_batches_and_second_tries() {
    let received = Arc::new(Mutex::new(Vec::<Value>::new()));
    let (seen, mut failures) = (received.clone(), 2);
    let handler = move |request: hyper::Request<hyper::body::Incoming>| {
        failures = usize::saturating_sub(failures, 1);
        let (seen, fails) = (seen.clone(), failures > 0);
        async move {
            let bytes = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            let mut response = hyper::Response::new(crate::http::Body::empty());
            if fails {
                *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            } else {
                seen.lock().push(serde_json::from_slice(&bytes).unwrap_or_default());
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    };
    let handler = Arc::new(Mutex::new(handler));
    let service = tower::service_fn(move |request| (handler.lock())(request));
    let ca = CertificateAuthority::generate(&SystemClock).unwrap();
    let serving = ca.issue_server(&["localhost".to_owned()], &SystemClock).unwrap();
    let config = ca.server_config(&serving).unwrap();
    let socket = crate::tls::Server::bind("127.0.0.1:0".parse().unwrap(), config).await.unwrap();
    let url = format!("https://localhost:{}/audit", socket.local_addr().port());
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(socket.serve(service, stop.clone()));
    let server = ApiServer::builder(Arc::new(MemoryStore::new())).build().await.unwrap();
    let sink =
        WebhookSink::new(&url, Some(ca.certificate_pem())).unwrap().first_pause(Duration::from_millis(5));
    let delivery = Delivery { wait_max: Duration::from_millis(20), ..Delivery::batches() };
    let audit = Audit::new(Policy::everything(), Arc::new(SystemClock)).sink(sink, delivery);
    audit.start(&server);
    for n in 0..30 {
        event(&server, &audit, n).await;
    }
    audit.shutdown().await;
    let lists = received.lock().clone();
    assert!(lists.iter().all(|l| l["kind"] == "EventList"), "{lists:?}");
    let count: usize = lists.iter().map(|l| l["items"].as_array().unwrap().len()).sum();
    assert_eq!(count, 60, "nothing is lost and nothing twice");
    stop.cancel();
    running.await.unwrap();
    server.shutdown().await;
    assert!(WebhookSink::new("no address", None).is_err());
}
