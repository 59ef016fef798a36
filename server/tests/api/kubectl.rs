//! Real kubectls, where there are any, against a server on a loopback port.

use crate::common::store;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use kubewright_core::api::{BuiltinOptions, builtin};
use kubewright_core::{KindDescriptor, UserInfo};
use kubewright_server::ApiServer;
use kubewright_server::http::HttpService;
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

/// A server of the built-in kinds. Dropping it ends its connections.
pub(crate) struct Site {
    pub(crate) address: String,
    home: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

pub(crate) async fn site(kinds: Vec<KindDescriptor>) -> Site {
    let mut builder = ApiServer::builder(store()).without_builtin_admission();
    for kind in kinds {
        builder = builder.kind(kind);
    }
    let server = builder.build().await.unwrap();
    let admin = UserInfo {
        username: Some("admin".to_owned()),
        groups: Some(vec!["system:masters".to_owned()]),
        ..UserInfo::default()
    };
    let service = HttpService::new(server).identity(admin);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            connections.spawn(async move {
                let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = http.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    Site { address, home: tempfile::tempdir().unwrap(), _tasks: tasks }
}

/// The kubectls of this machine.
fn kubectls() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push("/usr/lib/google-cloud-sdk/bin".into());
    for folder in folders {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|n| n == "kubectl" || n.starts_with("kubectl.1.")) {
                found.push(entry.path());
            }
        }
    }
    found.sort_by_key(|path| std::fs::canonicalize(path).unwrap_or_else(|_| path.clone()));
    found.dedup_by_key(|path| std::fs::canonicalize(&*path).unwrap_or_else(|_| path.clone()));
    found
}

impl Site {
    /// What a kubectl prints, and whether it was content.
    async fn run(&self, kubectl: &Path, arguments: &[&str]) -> (bool, String) {
        let out = Command::new(kubectl)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("KUBE_EDITOR", "sed -i /replicas:/s/3/4/")
            .env("HOME", self.home.path())
            .env("TMPDIR", self.home.path())
            .env("KUBECONFIG", self.home.path().join("none"))
            .arg(format!("--server=http://{}", self.address))
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        (out.status.success(), text)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'web:1'}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_finds_its_way() {
    let all = kubectls();
    if all.is_empty() {
        println!("skipped: kubectl because none is installed");
        return;
    }
    let site = site(builtin(&BuiltinOptions::default())).await;
    for kubectl in &all {
        let check = async |arguments: &[&str], wanted: &[&str]| {
            let (ok, text) = site.run(kubectl, arguments).await;
            assert!(ok, "{} {arguments:?}: {text}", kubectl.display());
            for want in wanted {
                assert!(text.contains(want), "{} {arguments:?}: no {want:?} in {text}", kubectl.display());
            }
        };
        check(&["version"], &["v1.36.0+kubewright"]).await;
        check(&["api-versions"], &["v1\n", "apps/v1\n", "rbac.authorization.k8s.io/v1\n"]).await;
        check(&["api-resources"], &["deployments", "deploy", "Deployment", "customresourcedefinitions"])
            .await;
        check(&["get", "--raw", "/readyz?verbose"], &["[+]etcd ok", "readyz check passed"]).await;
        check(&["explain", "pods", "--recursive"], &["VERSION:", "containers\t<[]Container>", "hostIP"])
            .await;
        check(&["explain", "deploy.spec.replicas"], &["replicas <integer>", "Number of desired pods"]).await;
        check(&["get", "ns", "default", "-o", "name"], &["namespace/default"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_changes_objects() {
    let mut all = kubectls();
    if all.is_empty() {
        println!("skipped: kubectl because none is installed");
        return;
    }
    let site = site(builtin(&BuiltinOptions::default())).await;
    let two = site.file("two.yaml", DEPLOYMENT);
    let three = site.file("three.yaml", &DEPLOYMENT.replace("replicas: 2", "replicas: 3"));
    let odd = site.file("odd.yaml", &DEPLOYMENT.replace("replicas: 2", "replicos: 2"));
    // The oldest and the newest: they differ most, and a whole row of versions takes its time.
    all.sort_by_key(|path| path.file_name().map(|n| n == "kubectl"));
    let newest = all.iter().rfind(|p| p.file_name().is_some_and(|n| n != "kubectl")).or(all.last());
    for kubectl in all.first().into_iter().chain(newest.filter(|_| all.len() > 1)) {
        let check = async |arguments: &[&str], content: bool, want: &str| {
            let (ok, text) = site.run(kubectl, arguments).await;
            assert_eq!(ok, content, "{} {arguments:?}: {text}", kubectl.display());
            assert!(text.contains(want), "{} {arguments:?}: no {want:?} in {text}", kubectl.display());
        };
        check(&["apply", "-f", &odd], false, "unknown field \"spec.replicos\"").await;
        check(&["apply", "-f", &two, "--dry-run=server"], true, "deployment.apps/web created").await;
        check(&["apply", "-f", &two], true, "deployment.apps/web created").await;
        check(&["diff", "-f", &two], true, "").await;
        check(&["diff", "-f", &three], false, "+  replicas: 3").await;
        check(&["apply", "-f", &three], true, "deployment.apps/web configured").await;
        check(&["apply", "-f", &three], true, "deployment.apps/web unchanged").await;
        check(&["edit", "deployment", "web"], true, "deployment.apps/web edited").await;
        check(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"], true, "4").await;
        check(&["get", "deploy"], true, "0/4").await;
        check(&["delete", "deploy", "web", "--wait=false"], true, "deployment.apps \"web\" deleted").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_makes_objects_of_many_kinds() {
    let all = kubectls();
    let Some(kubectl) = all.last() else {
        println!("skipped: kubectl because none is installed");
        return;
    };
    let site = site(builtin(&BuiltinOptions::default())).await;
    let web = site.file("web.yaml", DEPLOYMENT);
    let check = async |arguments: &[&str], content: bool, want: &str| {
        let (ok, text) = site.run(kubectl, arguments).await;
        assert_eq!(ok, content, "{} {arguments:?}: {text}", kubectl.display());
        assert!(text.contains(want), "{} {arguments:?}: no {want:?} in {text}", kubectl.display());
    };
    check(&["apply", "-f", &web], true, "created").await;
    check(&["create", "job", "j", "--image=i:1"], true, "job.batch/j created").await;
    check(&["create", "cronjob", "c", "--image=i:1", "--schedule=* * * * *"], true, "created").await;
    check(&["create", "cronjob", "d", "--image=i:1", "--schedule=61 * * * *"], false, "above maximum (59)")
        .await;
    check(&["create", "job", "k", "--from=cronjob/c"], true, "job.batch/k created").await;
    check(&["create", "quota", "q", "--hard=pods=1,limits.cpu=2"], true, "resourcequota/q created").await;
    check(&["create", "ingress", "i", "--rule=a.example.com/*=s:80"], true, "created").await;
    check(&["create", "ingress", "e", "--rule=10.0.0.1/*=s:80"], false, "must be a DNS name").await;
    check(&["autoscale", "deployment", "web", "--max=3", "--cpu-percent=50"], true, "autoscaled").await;
    check(&["get", "job", "j"], true, "Running").await;
    check(&["get", "cj", "c", "-o", "wide"], true, "* * * * *").await;
    check(&["get", "hpa", "web"], true, "Deployment/web").await;
    check(&["get", "ing", "i"], true, "a.example.com").await;
    check(&["get", "all"], true, "horizontalpodautoscaler.autoscaling/web").await;
    check(&["describe", "job", "j"], true, "Parallelism:").await;
    check(&["describe", "hpa", "web"], true, "Max replicas:").await;
    check(&["explain", "statefulset.spec.serviceName"], true, "serviceName <string>").await;
}

const FOOS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: foos.shut.example.com}
spec:
  group: shut.example.com
  scope: Namespaced
  names: {plural: foos, kind: Foo}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        description: Foo CRD for Testing
        properties:
          spec:
            type: object
            description: Specification of Foo
            properties:
              bars:
                type: array
                description: List of Bars and their specs.
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string, description: Name of Bar.}, age: {type: string, description: Age of Bar.}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: foos.open.example.com}
spec:
  group: open.example.com
  scope: Namespaced
  names: {plural: foos, kind: Foo}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

fn foo(group: &str, rest: &str) -> String {
    format!(
        "apiVersion: {group}.example.com/v1\nkind: Foo\nmetadata: {{name: f, namespace: default}}\n{rest}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_checks_and_explains_custom_kinds() {
    let all = kubectls();
    let Some(kubectl) = all.last() else {
        println!("skipped: kubectl because none is installed");
        return;
    };
    let site = site(builtin(&BuiltinOptions::default())).await;
    let check = async |arguments: &[&str], content: bool, wanted: &[&str]| {
        let (ok, text) = site.run(kubectl, arguments).await;
        assert_eq!(ok, content, "{arguments:?}: {text}");
        for want in wanted {
            assert!(text.contains(want), "{arguments:?}: no {want:?} in {text}");
        }
    };
    check(&["apply", "-f", &site.file("foos.yaml", FOOS)], true, &["foos.shut.example.com created"]).await;
    let established =
        ["wait", "--for=condition=Established", "crd/foos.shut.example.com", "crd/foos.open.example.com"];
    check(&established, true, &["condition met"]).await;
    let good = site.file("good.yaml", &foo("shut", "spec: {bars: [{name: test-bar}]}"));
    check(&["create", "-f", &good], true, &["foo.shut.example.com/f created"]).await;
    check(&["delete", "-f", &good], true, &["deleted"]).await;
    check(&["apply", "-f", &good], true, &["created"]).await;
    let unknown = site.file("unknown.yaml", &foo("shut", "spec: {foo: true, bars: [{name: test-bar}]}"));
    let nameless = site.file("nameless.yaml", &foo("shut", "spec: {bars: [{age: '10'}]}"));
    for verb in ["create", "apply"] {
        check(&[verb, "-f", &unknown], false, &["unknown field \"spec.foo\""]).await;
        check(&[verb, "-f", &nameless], false, &["spec.bars[0].name", "Required value"]).await;
    }
    let open = site.file("open.yaml", &foo("open", "any: {thing: [goes]}"));
    check(&["create", "-f", &open], true, &["foo.open.example.com/f created"]).await;
    check(&["apply", "-f", &open], true, &["configured"]).await;
    let explain = |path: &str| format!("foos{path}");
    let shut = ["explain", "--api-version=shut.example.com/v1"];
    let told = async |path: &str, content: bool, wanted: &[&str]| {
        check(&[&shut[..], &[&explain(path)]].concat(), content, wanted).await;
    };
    told(
        "",
        true,
        &["Foo", "Foo CRD for Testing", "metadata\t<ObjectMeta>", "spec\t<Object>", "Specification of Foo"],
    )
    .await;
    told(".metadata", true, &["creationTimestamp\t<string>"]).await;
    told(".spec", true, &["bars\t<[]Object>", "List of Bars and their specs."]).await;
    told(".spec.bars", true, &["age\t<string>", "Age of Bar.", "name\t<string> -required-"]).await;
    told(".spec.bars2", false, &["field \"bars2\" does not exist"]).await;
    check(&["explain", "--api-version=open.example.com/v1", "foos"], true, &["Foo", "DESCRIPTION:"]).await;
}
