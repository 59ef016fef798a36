//! The store that the black-box tests run on, and the run of the ones that touch it most on every other store.

use crate::common::{Plane, version};
use futures::future::BoxFuture;
use kubewright_core::api::{BuiltinOptions, builtin};
use kubewright_core::{ApiRequest, ContentType, GroupVersionResource, Options, ResponseBody, Verb};
use kubewright_server::ApiServer;
use kubewright_store::{
    Capabilities, Commit, CommitOutcome, Error, EtcdOptions, EtcdStore, KeyRange, KeyValue, MemoryStore,
    RangeRequest, RangeResponse, RedbStore, Revision, SledStore, Store, WatchStream,
};
use serde_json::{Value, json};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Which store the tests of this process run on.
const CHOICE: &str = "KUBEWRIGHT_TEST_STORE";

/// The modules whose tests say most about a store, as filters of the test runner.
const ON_EVERY_STORE: &[&str] = &["apply::", "crud::", "list::", "watch::"];

/// A new, empty store: in memory, or of the kind that the environment names.
pub(crate) fn store() -> Arc<dyn Store> {
    match std::env::var(CHOICE).as_deref() {
        Err(_) | Ok("" | "memory") => Arc::new(MemoryStore::new()),
        Ok("redb") => {
            let folder = tempfile::tempdir().unwrap();
            let inner: Arc<dyn Store> = Arc::new(RedbStore::open(folder.path().join("store.redb")).unwrap());
            Arc::new(Kept {
                inner: OnceCell::new_with(Some(inner)),
                url: String::new(),
                etcd: None,
                _folder: folder,
            })
        }
        Ok("sled") => {
            let folder = tempfile::tempdir().unwrap();
            let inner: Arc<dyn Store> = Arc::new(SledStore::open(folder.path().join("store.sled")).unwrap());
            Arc::new(Kept {
                inner: OnceCell::new_with(Some(inner)),
                url: String::new(),
                etcd: None,
                _folder: folder,
            })
        }
        Ok("etcd") => Arc::new(Kept::etcd()),
        Ok(other) => panic!("{CHOICE} is {other:?}, not memory, redb, sled or etcd"),
    }
}

/// A store with what must live as long: its folder, and the server behind it.
struct Kept {
    /// A client of etcd is made when it is first used: it needs the runtime of the test.
    inner: OnceCell<Arc<dyn Store>>,
    url: String,
    etcd: Option<Child>,
    _folder: TempDir,
}

impl Kept {
    /// An etcd of its own, on loopback.
    fn etcd() -> Kept {
        let folder = tempfile::tempdir().unwrap();
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (client, peer) = (port(), port());
        let (url, peer_url) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let process = Command::new("etcd")
            .args(["--unsafe-no-fsync", "--log-level", "error", "--name", "m", "--data-dir"])
            .arg(folder.path())
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("m={peer_url}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("an etcd that runs");
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", client)).is_err() {
            assert!(Instant::now() < until, "etcd does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Kept { inner: OnceCell::new(), url, etcd: Some(process), _folder: folder }
    }

    async fn inner(&self) -> Result<&Arc<dyn Store>, Error> {
        let connect = || async {
            let store = EtcdStore::connect(EtcdOptions::new([self.url.as_str()])).await?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        };
        self.inner.get_or_try_init(connect).await
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(process) = &mut self.etcd {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Store for Kept {
    fn capabilities(&self) -> Capabilities {
        let of_etcd = Capabilities {
            durable: true,
            replicated: false,
            shared: true,
            history: true,
            previous_values: true,
        };
        self.inner.get().map_or(of_etcd, |inner| inner.capabilities())
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        Box::pin(async move { self.inner().await?.current_revision().await })
    }

    fn get(&self, key: bytes::Bytes) -> BoxFuture<'_, Result<Option<KeyValue>, Error>> {
        Box::pin(async move { self.inner().await?.get(key).await })
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, Error>> {
        Box::pin(async move { self.inner().await?.range(request).await })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, Error>> {
        Box::pin(async move { self.inner().await?.commit(commit).await })
    }

    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<WatchStream, Error>> {
        Box::pin(async move { self.inner().await?.watch(range, from).await })
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.inner().await?.compact(revision).await })
    }

    fn keep_in_memory(&self, prefix: bytes::Bytes) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.inner().await?.keep_in_memory(prefix).await })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.inner().await?.close().await })
    }
}

/// Runs this binary's tests of the chosen modules once more on a store.
fn check(store: &str) {
    if std::env::var_os(CHOICE).is_some() {
        return println!("skipped: the run on {store} because this one is on a chosen store already");
    }
    let run = Command::new(std::env::current_exe().unwrap())
        .args(ON_EVERY_STORE)
        // Thousands of writes one after another, each with a flush: it is about the cache, and takes minutes on a disk.
        .args(["--skip", "a_slow_watcher"])
        .env(CHOICE, store)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "on {store}:\n{told}\n{}", String::from_utf8_lossy(&run.stderr));
    let passed = told.lines().find_map(|line| line.strip_prefix("test result: ok. ")).unwrap_or_default();
    let count: usize = passed.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    assert!(count >= 20, "on {store} only these ran:\n{told}");
    println!("on {store}: {passed}");
}

#[test]
fn the_tests_hold_on_redb() {
    check("redb");
}

#[test]
fn the_tests_hold_on_sled() {
    check("sled");
}

#[test]
fn the_tests_hold_on_etcd() {
    if Command::new("etcd").arg("--version").output().is_err() {
        return println!("skipped: the tests on a real etcd because no etcd is installed");
    }
    check("etcd");
}

/// A server that keeps leases in memory only, on the store of a folder.
async fn with_leases_in_memory(store: Arc<dyn Store>) -> Plane {
    let mut builder = ApiServer::builder(store).in_memory("coordination.k8s.io", "leases");
    for kind in builtin(&BuiltinOptions::default()) {
        builder = builder.kind(kind);
    }
    Plane(builder.build().await.unwrap())
}

fn leases(verb: Verb, name: Option<&str>) -> ApiRequest {
    let resource = GroupVersionResource::new("coordination.k8s.io", "v1", "leases");
    ApiRequest::resource(verb, resource, Some("default"), name)
}

fn maps(verb: Verb, name: Option<&str>) -> ApiRequest {
    ApiRequest::resource(verb, GroupVersionResource::new("", "v1", "configmaps"), Some("default"), name)
}

fn object(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

/// What a watch from a revision answers: events, or the code with which it is refused.
async fn watched(plane: &Plane, from: u64) -> Result<(), u16> {
    let mut watch = leases(Verb::Watch, None);
    watch.options = Options { resource_version: Some(from.to_string()), ..Options::default() };
    match plane.send(watch).await.map_err(|e| e.code())?.body {
        ResponseBody::Watch(_) => Ok(()),
        other => panic!("no watch: {other:?}"),
    }
}

async fn check_short_lived(name: &str, open: fn(&Path) -> Arc<dyn Store>) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let plane = with_leases_in_memory(store.clone()).await;
    let made = plane.value(leases(Verb::Create, None).body(ContentType::Json, object("l"))).await.unwrap();
    let kept = plane.value(maps(Verb::Create, None).body(ContentType::Json, object("m"))).await.unwrap();
    assert!(version(&kept) > version(&made), "{name}: one order");
    let beat = |n: u32| {
        let patch = json!({"spec": {"leaseTransitions": n}});
        leases(Verb::Patch, Some("l")).body(ContentType::MergePatch, patch)
    };
    let mut last = version(&kept);
    for n in 1..5 {
        let next = version(&plane.value(beat(n)).await.unwrap());
        assert!(next > last, "{name}: {next} came after {last}");
        last = next;
    }
    let mut stale = object("l");
    stale["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    let stale = plane.send(leases(Verb::Update, Some("l")).body(ContentType::Json, stale)).await.unwrap_err();
    assert_eq!(stale.code(), 409, "{name}");
    assert_eq!(watched(&plane, version(&made)).await, Ok(()), "{name}");
    plane.0.shutdown().await;
    store.close().await.unwrap();
    drop((plane, store));

    let plane = with_leases_in_memory(open(folder.path())).await;
    let gone = plane.send(leases(Verb::Get, Some("l"))).await.unwrap_err();
    assert_eq!(gone.code(), 404, "{name}");
    assert_eq!(plane.value(maps(Verb::Get, Some("m"))).await.unwrap(), kept, "{name}: as it was");
    assert_eq!(watched(&plane, last).await, Err(410), "{name}: whoever followed lists anew");
    let list = plane.send(leases(Verb::List, None)).await.unwrap();
    let ResponseBody::List(list) = list.body else { panic!("no list") };
    assert!(
        list.items.is_empty() && list.resource_version > last,
        "{name}: {} after {last}",
        list.resource_version
    );
    assert_eq!(watched(&plane, list.resource_version).await, Ok(()), "{name}");
    plane.0.shutdown().await;
}

#[tokio::test]
async fn kinds_in_memory_go_with_the_process_and_clients_list_anew() {
    check_short_lived("redb", |folder| Arc::new(RedbStore::open(folder.join("store.redb")).unwrap())).await;
    check_short_lived("sled", |folder| Arc::new(SledStore::open(folder.join("store.sled")).unwrap())).await;
}
