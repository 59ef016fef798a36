//! Planes as values: composed with every mistake told at once, many in one process, started and ended in order, gone when dropped.

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kubewright::client::Api;
use kubewright::core::Resource;
use kubewright::core::api::{self, BuiltinOptions};
use kubewright::nodes::{self, NodeSetup};
use kubewright::reconcile::{Action, Context, Controller};
use kubewright::runtime::fake::{FakeConfig, FakeRuntime};
use kubewright::sched::Profile;
use kubewright::server::admission::Admission;
use kubewright::storage::SimulatedVolumes;
use kubewright::store::{
    Capabilities, Commit, CommitOutcome, Error, KeyRange, KeyValue, MemoryStore, RangeRequest, RangeResponse,
    Revision, Store, WatchStream,
};
use kubewright::{BuildError, Builder, ControlPlane, Https, Part, bundles, parts};
use serde_json::json;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

fn controller(name: &'static str) -> Controller {
    let pass = |_: Arc<ConfigMap>, _: Context| async { Ok::<_, Infallible>(Action::Done) };
    Controller::for_kind::<ConfigMap>(name).owns::<Node>().with(pass)
}

/// The kind ConfigMap alone.
fn config_maps() -> impl Part {
    let all = api::builtin(&BuiltinOptions::default());
    let one = all.into_iter().find(|kind| kind.resource() == ConfigMap::resource());
    parts::descriptor(one.expect("a built-in kind"))
}

struct Silent;

impl Admission for Silent {
    fn name(&self) -> &'static str {
        "Silent"
    }
}

/// A simulated node, made with the folder that it keeps.
fn node(name: &str, folder: &std::path::Path) -> impl Part {
    let root = folder.join(name);
    nodes::node(name, move |setup: NodeSetup| {
        let runtime = Arc::new(FakeRuntime::new(FakeConfig::default(), setup.clock.clone(), 1));
        let agent = setup.agent().root_dir(root).simulated().volumes(Arc::new(SimulatedVolumes));
        Ok(agent.runtime(runtime.clone()).images(runtime).build()?)
    })
}

#[test]
fn every_mistake_is_told_at_once() {
    let folder = std::env::temp_dir();
    let check = |builder: Builder, wanted: &[&str]| {
        let errors = builder.build().map(drop).expect_err("mistakes").0;
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        for words in wanted {
            assert!(texts.iter().any(|t| t.contains(words)), "{words:?} is not among {texts:#?}");
        }
        assert_eq!(texts.len(), wanted.len(), "{texts:#?}");
    };
    check(ControlPlane::builder(), &["no store is given"]);
    let listen = "127.0.0.1:0".parse().expect("an address");
    let twice = ControlPlane::builder()
        .with((parts::store(MemoryStore::new()), parts::store(MemoryStore::new())))
        .with((Https::on(listen), Https::on(listen)))
        .with((parts::seed(1), parts::seed(2), parts::keys("/a"), parts::keys("/b")))
        .with((bundles::kinds(), config_maps()))
        .with((controller("same"), controller("same")))
        .with((parts::admission(Silent), parts::admission(Silent)))
        .with((node("one", &folder), node("one", &folder), node("Not A Name", &folder)))
        .with((parts::service_cidr("10.0.0.0/40"), nodes::service_proxy(), nodes::service_proxy()))
        .with(parts::scheduler(|| {
            let empty = Profile::builder("empty");
            vec![empty, Profile::defaults("a")]
        }));
    check(
        twice,
        &[
            "the store is given twice",
            "the HTTPS server is given twice",
            "the seed is given twice",
            "the folder of keys is given twice",
            "two kinds are served as v1 configmaps",
            "two controllers are called same",
            "two admission plugins are called Silent",
            "two nodes are called one",
            "\"Not A Name\": a lowercase RFC 1123 subdomain",
            "\"10.0.0.0/40\"",
            "the Service proxy is given twice",
            "profile 1 of the scheduler: no plugin orders the queue",
            "profile 1 of the scheduler: no plugin binds",
        ],
    );
    let alike = parts::scheduler(|| vec![Profile::defaults("a"), Profile::defaults("a")]);
    let bare = ControlPlane::builder().with((parts::store(MemoryStore::new()), alike));
    check(bare, &["the scheduler: the plugin profile is there twice"]);
    let gaps = ControlPlane::builder()
        .with((parts::store(MemoryStore::new()), config_maps(), controller("maps")))
        .with((bundles::scheduler(), node("one", &folder)));
    check(
        gaps,
        &[
            "the controller maps needs the kind v1 nodes",
            "the controller scheduler needs the kind v1 nodes",
            "the controller scheduler needs the kind v1 pods",
            "the node one needs the kind v1 nodes",
            "the node one needs the kind v1 pods",
            "the node one needs the kind coordination.k8s.io/v1 leases",
        ],
    );
    let no_store = ControlPlane::builder().build().expect_err("no store");
    assert_eq!(no_store.0, [BuildError::NoStore]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_planes_in_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut planes = JoinSet::new();
    for number in 0..50u64 {
        let parts = (parts::store(MemoryStore::new()), bundles::kubernetes(), parts::seed(number));
        let builder = ControlPlane::builder().with(parts).with(node("one", folder.path()));
        planes.spawn(async move {
            let plane = builder.build().expect("composed").start().await.expect("started");
            let maps = Api::<ConfigMap>::namespaced(plane.client().clone(), "default");
            let map = json!({"metadata": {"name": "own"}, "data": {"plane": number.to_string()}});
            maps.create(&serde_json::from_value(map).expect("a ConfigMap")).await.expect("created");
            let seen = maps.get("own").await.expect("there");
            assert_eq!(
                seen.data.as_ref().expect("data")["plane"],
                number.to_string(),
                "its own and no other's"
            );
            plane.shutdown().await.expect("ended");
        });
    }
    assert_eq!(planes.join_all().await.len(), 50);
}

/// Waits until only so many tasks are alive.
async fn tasks_fall_to(count: usize) {
    let metrics = tokio::runtime::Handle::current().metrics();
    for _ in 0..600 {
        if metrics.num_alive_tasks() <= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} tasks are alive, {count} were before", metrics.num_alive_tasks());
}

#[test]
fn a_plane_leaves_no_task() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let start = || async {
        let parts = (parts::store(MemoryStore::new()), bundles::kubernetes(), node("one", folder.path()));
        let https = Https::on("127.0.0.1:0".parse().expect("an address"));
        let builder = ControlPlane::builder().with(parts).with((https, nodes::service_proxy()));
        let plane = builder.build().expect("composed").start().await.expect("started");
        let nodes = Api::<Node>::all(plane.client().clone());
        while nodes.list(Default::default()).await.expect("a list").items.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        plane
    };
    runtime.block_on(async {
        let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        drop(start().await);
        tasks_fall_to(before).await;
        start().await.shutdown().await.expect("ended");
        tasks_fall_to(before).await;
    });
}

type Log = Arc<Mutex<Vec<&'static str>>>;

/// Notes when it is dropped.
struct Ends(Log, &'static str);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.lock().expect("a log").push(self.1);
    }
}

/// A store that notes when it is closed.
struct Noted(MemoryStore, Log);

impl Store for Noted {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    fn current_revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        self.0.current_revision()
    }
    fn get(&self, key: bytes::Bytes) -> BoxFuture<'_, Result<Option<KeyValue>, Error>> {
        self.0.get(key)
    }
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, Error>> {
        self.0.range(request)
    }
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, Error>> {
        self.0.commit(commit)
    }
    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<WatchStream, Error>> {
        self.0.watch(range, from)
    }
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        self.0.compact(revision)
    }
    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.1.lock().expect("a log").push("store");
        self.0.close()
    }
}

/// A plane whose parts note their starts and ends; `good` is whether its node can be made.
fn noted(log: &Log, folder: &std::path::Path, good: bool) -> Builder {
    let (for_controller, for_node, root) = (log.clone(), log.clone(), folder.join("noted"));
    let controller = Controller::from_fn("noted", move |cx: Context| {
        let ends = Ends(for_controller.clone(), "controller");
        async move {
            let _ends = ends;
            cx.cancel().cancelled().await;
        }
    });
    let node = nodes::node("one", move |setup: NodeSetup| {
        for_node.lock().expect("a log").push("node made");
        if !good {
            return Err("no node today".into());
        }
        let runtime = Arc::new(FakeRuntime::new(FakeConfig::default(), setup.clock.clone(), 1));
        let agent = setup.agent().root_dir(root).simulated().volumes(Arc::new(SimulatedVolumes));
        Ok(agent.runtime(runtime.clone()).images(runtime).build()?)
    });
    let store = parts::store(Noted(MemoryStore::new(), log.clone()));
    ControlPlane::builder().with((store, bundles::kinds(), controller, node))
}

#[test]
fn parts_start_and_end_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let started = |log: &Log, good| noted(log, folder.path(), good).build().expect("composed").start();
    runtime.block_on(async {
        let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let log = Log::default();
        let plane = started(&log, true).await.expect("started");
        let nodes = Api::<Node>::all(plane.client().clone());
        while nodes.list(Default::default()).await.expect("a list").items.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        plane.shutdown().await.expect("ended");
        assert_eq!(*log.lock().expect("a log"), ["node made", "controller", "store"]);

        let log = Log::default();
        let refused = started(&log, false).await.expect_err("a node that can't be made");
        assert_eq!((refused.part(), refused.to_string().as_str()), ("node", "node: no node today"));
        assert_eq!(log.lock().expect("a log")[0], "node made");
        tasks_fall_to(before).await;
    });
}

/// The values that a store holds of ConfigMaps, as text.
#[cfg(feature = "encryption")]
async fn stored(store: &Arc<dyn Store>) -> Vec<String> {
    let range = KeyRange::prefix("/registry/core/configmaps/");
    let page = store.range(RangeRequest { range, limit: 0, revision: None }).await.expect("a range");
    page.items.iter().map(|item| String::from_utf8_lossy(&item.value).into_owned()).collect()
}

/// A changed file is in force without a restart; one with mistakes changes nothing.
#[cfg(feature = "encryption")]
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_encryption_file_is_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("encryption.yaml");
    let write = |providers: &str| {
        let text = format!(
            "{{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, \
            resources: [{{resources: [configmaps], providers: [{providers}]}}]}}"
        );
        std::fs::write(&file, text).expect("written");
    };
    let old = "aescbc: {keys: [{name: a, secret: AAAAAAAAAAAAAAAAAAAAAA==}]}";
    let new = "secretbox: {keys: [{name: b, secret: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=}]}";
    write(&format!("{{{old}}}, {{identity: {{}}}}"));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let plane = ControlPlane::builder()
        .with(parts::shared_store(store.clone()))
        .with(bundles::kinds())
        .with(parts::encryption_file(&file))
        .build()
        .expect("no mistakes")
        .start()
        .await
        .expect("started");
    let maps = Api::<ConfigMap>::namespaced(plane.client().clone(), "default");
    let made = serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {"word": "plain"}}));
    maps.create(&made.expect("a map")).await.expect("created");
    let all_by = async |way: &str| {
        let values = stored(&store).await;
        !values.is_empty() && values.iter().all(|v| v.starts_with(&format!("kubewright:{way}:v1:")))
    };
    assert!(all_by("aescbc").await, "{:?}", stored(&store).await);
    assert!(!plane.reload_encryption().expect("the same file"));
    write("{rot13: {}}");
    plane.reload_encryption().expect_err("mistakes");
    write(&format!("{{{new}}}, {{{old}}}"));
    assert!(plane.reload_encryption().expect("a good file"));
    assert!(plane.rewrite_encrypted().await.expect("rewritten") > 0);
    assert!(all_by("secretbox").await, "{:?}", stored(&store).await);
    let map = maps.get("m").await.expect("a map");
    assert_eq!(map.data.as_ref().and_then(|d| d.get("word")).map(String::as_str), Some("plain"));
    plane.shutdown().await.expect("ended");
}
