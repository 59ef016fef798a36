//! Every kubectl on this machine against the server over TLS: exec, logs, port-forward, identities.

mod node;

use kubewright_core::{Registry, SystemClock};
use kubewright_server::auth::{Access, SigningKey, authenticated};
use kubewright_server::tls::{CertificateAuthority, Kubeconfig, KubeconfigCredentials, Server};
use kubewright_server::{ApiServer, NodeConnections};
use kubewright_store::MemoryStore;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A plane with one running pod, served over TLS.
struct Plane {
    folder: tempfile::TempDir,
    shutdown: CancellationToken,
    server: ApiServer,
    running: tokio::task::JoinHandle<()>,
}

async fn post(server: &ApiServer, path: &str, method: &str, value: Value) {
    let root = authenticated("root", &["system:masters"]);
    let service = kubewright_server::http::HttpService::new(server.clone()).identity(root);
    let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = http_body_util::Full::new(bytes::Bytes::from(value.to_string()));
    let request =
        http::Request::builder().method(method).uri(path).header("content-type", media).body(body).unwrap();
    let response = service.oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let text = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert!(code < 300 || code == 409, "{path}: {}", String::from_utf8_lossy(&text));
}

async fn plane() -> Plane {
    let mut registry = Registry::new();
    for kind in kubewright_core::api::builtin(&Default::default()) {
        registry.insert(kind).unwrap();
    }
    let nodes = NodeConnections::new();
    nodes.insert("n1", Arc::new(node::Echo));
    let access = Access::rbac(SigningKey::generate().unwrap(), Arc::new(SystemClock));
    let builder = ApiServer::builder(Arc::new(MemoryStore::new())).registry(registry).nodes(nodes);
    let server = access.install(builder).build().await.unwrap();
    access.start(&server).await.unwrap();
    fill(&server).await;

    let folder = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::load_or_generate(folder.path(), &SystemClock).unwrap();
    let names = CertificateAuthority::server_names(None, &[]);
    let serving = ca.serving_certificate(folder.path(), &names, &SystemClock).unwrap();
    let socket =
        Server::bind("127.0.0.1:0".parse().unwrap(), ca.server_config(&serving).unwrap()).await.unwrap();
    let address = socket.local_addr();
    for (user, groups) in [("admin", &["system:masters"][..]), ("jane", &["dev"])] {
        let pair = ca.issue_client(user, groups, &SystemClock).unwrap();
        let config = Kubeconfig {
            cluster: "test".to_owned(),
            server: format!("https://{address}"),
            certificate_authority_pem: ca.certificate_pem().to_owned(),
            user: user.to_owned(),
            credentials: KubeconfigCredentials::Certificate(pair),
            namespace: None,
        };
        config.write(&folder.path().join(user)).unwrap();
    }
    let shutdown = CancellationToken::new();
    let http = access.http(access.authorized(server.clone())).closing(shutdown.clone());
    let running = tokio::spawn(socket.serve(http, shutdown.clone()));
    Plane { folder, shutdown, server, running }
}

async fn fill(server: &ApiServer) {
    let object =
        |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    post(server, "/api/v1/namespaces", "POST", object("Namespace", "default")).await;
    post(server, "/api/v1/nodes", "POST", object("Node", "n1")).await;
    post(server, "/api/v1/namespaces/default/serviceaccounts", "POST", object("ServiceAccount", "default"))
        .await;
    let mut pod = object("Pod", "web");
    pod["spec"] = json!({"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]});
    post(server, "/api/v1/namespaces/default/pods", "POST", pod).await;
    let status = json!({"status": {"phase": "Running", "containerStatuses": [{
        "name": "c", "ready": true, "restartCount": 0, "image": "i", "imageID": "i", "containerID": "x://1",
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }]}});
    post(server, "/api/v1/namespaces/default/pods/web/status", "PATCH", status).await;
}

/// The kubectls beside the one that `PATH` finds, or that one alone.
fn kubectls() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(found) = std::env::split_paths(&path).map(|p| p.join("kubectl")).find(|p| p.is_file()) else {
        return Vec::new();
    };
    let real = found.canonicalize().unwrap_or(found);
    let beside = real.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten();
    let mut all: Vec<PathBuf> = beside
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("kubectl.1.")))
        .collect();
    all.sort();
    if all.is_empty() { vec![real] } else { all }
}

struct Kubectl<'a> {
    binary: &'a Path,
    plane: &'a Plane,
}

impl Kubectl<'_> {
    fn command(&self, user: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.binary);
        command.arg("--kubeconfig").arg(self.plane.folder.path().join(user));
        command.arg("--cache-dir").arg(self.plane.folder.path().join("cache")).args(args);
        command.env_remove("KUBECONFIG").env("HOME", self.plane.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs it with some standard input; gives exit code, output and error output.
    async fn run(&self, user: &str, args: &[&str], input: &[u8]) -> (i32, String, String) {
        let mut child = self.command(user, args).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feed = tokio::spawn(async move {
            let _ = stdin.write_all(&input).await;
        });
        let done = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
        let done = done.unwrap_or_else(|_| panic!("{:?} {args:?} does not end", self.binary)).unwrap();
        feed.abort();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (done.status.code().unwrap_or(-1), text(done.stdout), text(done.stderr))
    }

    async fn check(&self, user: &str, args: &[&str], input: &[u8], code: i32, out: &str, err: &str) {
        let (got, stdout, stderr) = self.run(user, args, input).await;
        let good = got == code && stdout.contains(out) && stderr.contains(err);
        assert!(good, "{:?} {args:?}: {got}\n{stdout}\n{stderr}", self.binary.file_name());
    }

    async fn forward(&self) {
        let mut child = self.command("admin", &["port-forward", "pod/web", ":8080"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await.unwrap().unwrap();
        let line = line.expect("port-forward says where it listens");
        let port = line.split("127.0.0.1:").nth(1).and_then(|l| l.split(' ').next()).unwrap();
        for round in 0..3 {
            let talk = async {
                let mut socket = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
                let sent = format!("hello {round}").repeat(20_000);
                let (mut read, mut write) = socket.split();
                let send = async {
                    write.write_all(sent.as_bytes()).await.unwrap();
                    write.shutdown().await.unwrap();
                };
                let mut got = String::new();
                let (_, received) = tokio::join!(send, read.read_to_string(&mut got));
                received.unwrap();
                assert!(got == sent.to_uppercase(), "{} of {} bytes came back", got.len(), sent.len());
            };
            tokio::time::timeout(Duration::from_secs(30), talk).await.unwrap();
        }
        child.kill().await.unwrap();
    }
}

async fn identities(kubectl: &Kubectl<'_>) {
    let is = |versions: &[&str]| versions.iter().any(|v| kubectl.binary.ends_with(format!("kubectl.1.{v}")));
    // Before 1.28 it asks in versions that Kubernetes has dropped since.
    if !is(&["27"]) {
        kubectl.check("admin", &["auth", "whoami"], b"", 0, "system:masters", "").await;
    }
    kubectl.check("jane", &["auth", "can-i", "list", "pods"], b"", 1, "no", "").await;
    kubectl.check("admin", &["auth", "can-i", "list", "pods"], b"", 0, "yes", "").await;
    kubectl.check("jane", &["auth", "can-i", "--list"], b"", 0, "selfsubjectaccessreviews", "").await;
    kubectl.check("admin", &["create", "token", "default"], b"", 0, "eyJ", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kubectl_gets_through() {
    let binaries = kubectls();
    if binaries.is_empty() {
        println!("skipped: kubectl because none is in PATH");
        return;
    }
    let plane = plane().await;
    for binary in &binaries {
        let kubectl = Kubectl { binary, plane: &plane };
        kubectl.check("admin", &["get", "pods"], b"", 0, "web", "").await;
        kubectl
            .check("jane", &["get", "pods"], b"", 1, "", "User \"jane\" cannot list resource \"pods\"")
            .await;
        identities(&kubectl).await;
        kubectl.check("admin", &["logs", "web"], b"", 0, "a line", "").await;
        kubectl.check("admin", &["exec", "web", "--", "echo", "hi", "there"], b"", 0, "hi there", "").await;
        kubectl.check("admin", &["exec", "web", "--", "complain"], b"", 0, "", "to the error output").await;
        kubectl.check("admin", &["exec", "web", "--", "exit", "7"], b"", 7, "", "exit code 7").await;
        let input = "0123456789abcdef".repeat(40_000);
        let (code, out, err) =
            kubectl.run("admin", &["exec", "-i", "web", "--", "cat"], input.as_bytes()).await;
        assert!(code == 0 && out == input, "{code}: {} bytes, {err}", out.len());
        kubectl.check("admin", &["exec", "web", "--", "nothing"], b"", 1, "", "no such program").await;
        kubectl.check("jane", &["exec", "web", "--", "echo"], b"", 1, "", "cannot").await;
        kubectl.forward().await;
    }
    plane.shutdown.cancel();
    plane.running.await.unwrap();
    plane.server.shutdown().await;
}
