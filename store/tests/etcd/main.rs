//! The store on real etcd servers: one member, three members, with passwords, and with certificates.
#![cfg(feature = "etcd")]

mod cluster;

use cluster::Cluster;
use futures::StreamExt as _;
use kubewright_store::conformance::Conformance;
use kubewright_store::{
    Commit, CommitOutcome, Compare, Error, EtcdOptions, EtcdStore, EtcdTls, Event, KeyRange, Op,
    RangeRequest, Reason, Store,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

async fn connect(options: EtcdOptions) -> Result<Arc<dyn Store>, Error> {
    Ok(Arc::new(EtcdStore::connect(options).await?))
}

fn put(key: &str, value: &str) -> Commit {
    let op = Op::Put { key: key.to_owned().into(), value: value.to_owned().into() };
    Commit { compares: vec![], ops: vec![op] }
}

async fn conforms(members: usize) {
    let Some(cluster) = Cluster::start(members, &[]) else { return };
    let urls = cluster.urls();
    let store = connect(EtcdOptions::new(urls.clone())).await.unwrap();
    assert_eq!(store.capabilities().replicated, members >= 3);
    let report = Conformance::new(move || connect(EtcdOptions::new(urls.clone()))).run().await;
    assert!(report.passed(), "etcd of {members}\n{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_conforms() {
    conforms(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_conform() {
    conforms(3).await;
}

/// What a writer knows of its keys.
#[derive(Default)]
struct Written {
    acknowledged: BTreeMap<String, u64>,
    unknown: BTreeSet<String>,
}

/// Creates keys one after another, whatever fails on the way.
async fn write_on(store: Arc<dyn Store>, task: usize, count: usize) -> Written {
    let mut written = Written::default();
    for at in 0..count {
        let key = format!("k/{task}/{at:04}");
        loop {
            let compares = vec![Compare { key: key.clone().into(), mod_revision: 0 }];
            let commit = Commit { compares, ..put(&key, "x") };
            match store.commit(commit).await {
                Ok(CommitOutcome::Committed { revision }) => {
                    written.acknowledged.insert(key, revision);
                    break;
                }
                Ok(CommitOutcome::Refused { .. }) => panic!("{key} was written twice"),
                Err(error) if error.is_indeterminate() => {
                    written.unknown.insert(key);
                    break;
                }
                Err(error) => assert!(error.is_retryable(), "{key}: {error}"),
            }
        }
    }
    written
}

/// Follows every key until the given one appears.
async fn follow_until(store: Arc<dyn Store>, last: &str) -> Vec<Event> {
    let mut watch = store.watch(KeyRange::prefix("k/"), 1).await.unwrap();
    let mut events = Vec::new();
    loop {
        let batch = watch.next().await.unwrap().unwrap();
        events.extend(batch.events);
        if events.last().is_some_and(|event| event.key() == last.as_bytes()) {
            return events;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_dies_while_writing() {
    let Some(mut cluster) = Cluster::start(3, &[]) else { return };
    let leader = cluster.leader();
    // The leader first, so that both the calls and the watch hang on it.
    let mut urls = cluster.urls();
    urls.swap(0, leader);
    let options = EtcdOptions { call_timeout: Duration::from_secs(3), ..EtcdOptions::new(urls) };
    let store = connect(options).await.unwrap();
    let watch = tokio::spawn(follow_until(store.clone(), "k/end"));
    let tasks: Vec<_> = (0..8).map(|task| tokio::spawn(write_on(store.clone(), task, 150))).collect();
    tokio::time::sleep(Duration::from_millis(400)).await;
    cluster.kill(leader);
    let mut written = Written::default();
    for task in tasks {
        let one = task.await.unwrap();
        written.acknowledged.extend(one.acknowledged);
        written.unknown.extend(one.unknown);
    }
    println!("{} acknowledged, {} unknown", written.acknowledged.len(), written.unknown.len());
    cluster.restart(leader);
    store.commit(put("k/end", "x")).await.unwrap();
    let events = tokio::time::timeout(Duration::from_secs(60), watch).await.unwrap().unwrap();
    check_written(&store, &written, &events).await;
}

async fn check_written(store: &Arc<dyn Store>, written: &Written, events: &[Event]) {
    let request = RangeRequest { range: KeyRange::prefix("k/"), limit: 0, revision: None };
    let held = store.range(request).await.unwrap().items;
    let found: BTreeMap<_, _> =
        held.iter().map(|kv| (String::from_utf8_lossy(&kv.key).into_owned(), kv.mod_revision)).collect();
    for (key, revision) in &written.acknowledged {
        assert_eq!(found.get(key), Some(revision), "the acknowledged {key} is lost");
    }
    for key in found.keys().filter(|key| *key != "k/end") {
        assert!(
            written.acknowledged.contains_key(key) || written.unknown.contains(key),
            "{key} came from nowhere"
        );
    }
    let mut by_revision: Vec<_> = held.iter().map(|kv| (kv.mod_revision, kv.key.clone())).collect();
    by_revision.sort_unstable();
    let watched: Vec<_> = events.iter().map(|event| (event.revision(), event.key().clone())).collect();
    assert_eq!(watched, by_revision, "the watch has a gap or a repeat");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_cluster_says_so_and_comes_back() {
    let Some(mut cluster) = Cluster::start(1, &[]) else { return };
    let options = EtcdOptions {
        call_timeout: Duration::from_millis(500),
        give_up_after: Duration::from_millis(700),
        ..EtcdOptions::new(cluster.urls())
    };
    let store = connect(options.clone()).await.unwrap();
    store.commit(put("k/a", "1")).await.unwrap();
    cluster.kill(0);
    let error = store.get("k/a".into()).await.unwrap_err();
    assert!(matches!(error.reason(), Reason::Unavailable | Reason::Timeout), "{error}");
    let error = store.commit(put("k/a", "2")).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let error = connect(options).await.map(|_| ()).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    cluster.restart(0);
    let kv = store.get("k/a".into()).await.unwrap().unwrap();
    assert!(!kv.value.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn users_log_in() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    for command in
        [&["user", "add", "root:secret"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]]
    {
        if !cluster.etcdctl(command) {
            return println!("skipped: etcd's users because etcdctl is not installed or fails");
        }
    }
    let login = |name: &str, password: &str| EtcdOptions {
        credentials: Some((name.into(), password.into())),
        ..EtcdOptions::new(cluster.urls())
    };
    let store = connect(login("root", "secret")).await.unwrap();
    store.commit(put("k/a", "1")).await.unwrap();
    let mut watch = store.watch(KeyRange::prefix("k/"), 1).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().events.len(), 1);
    for options in [login("root", "wrong"), login("nobody", "secret"), EtcdOptions::new(cluster.urls())] {
        let error = connect(options).await.map(|_| ()).unwrap_err();
        assert!(!error.is_retryable(), "{error} ({:?})", error.reason());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let pki = cluster::Pki::new(folder.path());
    let Some(cluster) = Cluster::start(1, &pki.arguments()) else { return };
    let with = |tls: EtcdTls| EtcdOptions {
        tls,
        give_up_after: Duration::from_millis(500),
        ..EtcdOptions::new(cluster.urls())
    };
    let store = connect(with(pki.client())).await.unwrap();
    store.commit(put("k/a", "1")).await.unwrap();
    let other = cluster::Pki::new(tempfile::tempdir().unwrap().path());
    for tls in [other.client(), EtcdTls { ca: pki.client().ca, ..EtcdTls::default() }] {
        let error = connect(with(tls)).await.map(|_| ()).unwrap_err();
        assert!(
            matches!(error.reason(), Reason::Unavailable | Reason::Timeout),
            "{error} ({:?})",
            error.reason()
        );
    }
}

#[tokio::test]
async fn bad_endpoints_are_told() {
    for endpoints in [vec![], vec!["http://"], vec!["127.0.0.1"], vec!["http://[::1"], vec!["ftp ://x:1"]] {
        let error = connect(EtcdOptions::new(endpoints.clone())).await.map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), Reason::Invalid, "{endpoints:?}: {error}");
    }
}

/// etcd itself deletes what has a time to live, each write begins it anew, and the rest stays.
#[tokio::test(flavor = "multi_thread")]
async fn keys_with_a_time_to_live_go_by_themselves() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let store = connect(EtcdOptions::new(cluster.urls())).await.unwrap();
    assert!(store.expire("short/".into(), Duration::from_secs(2)));
    assert!(store.keep_in_memory("short/".into()).await.is_err_and(|e| e.reason() == Reason::Unsupported));
    let mut watch = store.watch(KeyRange::prefix(""), 1).await.unwrap();
    let commit = Commit {
        compares: vec![],
        ops: ["short/a", "long/a"].map(|k| Op::Put { key: k.into(), value: "1".into() }).into(),
    };
    store.commit(commit).await.unwrap();
    store.commit(put("short/b", "2")).await.unwrap();
    let mut gone = BTreeSet::new();
    while gone.len() < 2 {
        let batch =
            tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap().unwrap().unwrap();
        for event in batch.events {
            if let Event::Delete { key, .. } = event {
                gone.insert(key);
            }
        }
    }
    assert_eq!(gone.into_iter().collect::<Vec<_>>(), ["short/a", "short/b"]);
    assert!(store.get("long/a".into()).await.unwrap().is_some());
    // The lease is over meanwhile; a new one is made.
    store.commit(put("short/c", "3")).await.unwrap();
    // One that somebody revokes is replaced too.
    assert!(store.get("short/c".into()).await.unwrap().is_some());
    assert!(store.expire("short/".into(), Duration::ZERO));
    store.commit(put("short/d", "4")).await.unwrap();
}
