//! The wrappers: each passes the conformance suite, and does what it is for.
#![cfg(feature = "encryption")]

use futures::StreamExt as _;
use kubewright_store::conformance::Conformance;
use kubewright_store::{
    Commit, CommitOutcome, Compare, EncryptedStore, EncryptionKey, EncryptionScope, Event, Faults,
    FaultyStore, KeyRange, MemoryStore, MeteredStore, Op, RangeRequest, Reason, Store,
};
use std::sync::Arc;
use std::time::Duration;

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn put(key: &'static str, value: &'static str) -> Commit {
    Commit { compares: vec![], ops: vec![Op::Put { key: key.into(), value: value.into() }] }
}

async fn check_conforms(name: &str, wrap: fn(Arc<dyn Store>) -> Arc<dyn Store>) {
    let report = Conformance::new(move || async move { Ok(wrap(memory())) }).run().await;
    assert!(report.passed(), "{name}\n{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrappers_conform() {
    check_conforms("metrics", |store| Arc::new(MeteredStore::new(store))).await;
    check_conforms("encryption", |store| Arc::new(encrypted(store, &["a"]))).await;
    check_conforms("latency", |store| {
        let slow = Faults { latency_max: Duration::from_micros(300), ..Faults::default() };
        Arc::new(FaultyStore::new(store, 1, slow))
    })
    .await;
    check_conforms("all of them", |store| {
        let store = Arc::new(encrypted(store, &["a", "b"]));
        Arc::new(MeteredStore::new(Arc::new(FaultyStore::new(store, 1, Faults::default()))))
    })
    .await;
}

#[tokio::test]
async fn metrics_count() {
    let store = MeteredStore::new(memory());
    store.commit(put("a", "123")).await.unwrap();
    let refused = Commit { compares: vec![Compare { key: "a".into(), mod_revision: 9 }], ..put("a", "4") };
    store.commit(refused).await.unwrap();
    store.commit(put("", "")).await.unwrap_err();
    store.get("a".into()).await.unwrap();
    let mut watch = store.watch(KeyRange::prefix(""), 1).await.unwrap();
    watch.next().await.unwrap().unwrap();
    let m = store.metrics();
    assert_eq!((m.commit.calls, m.commit.errors, m.commits_refused), (3, 1, 1));
    assert_eq!((m.bytes_written, m.bytes_read, m.get.calls), (3, 3, 1));
    assert_eq!((m.watches_open, m.watch_events, m.watch.calls), (1, 1, 1));
    assert_eq!(m.commit.buckets.iter().sum::<u64>(), 3);
    drop(watch);
    assert_eq!(store.metrics().watches_open, 0);
}

/// Which of a hundred commits were answered how, and how many happened.
async fn suffered(seed: u64, faults: Faults) -> (Vec<String>, u64) {
    let inner = memory();
    let store = FaultyStore::new(inner.clone(), seed, faults);
    let mut answers = Vec::new();
    for _ in 0..100 {
        answers.push(match store.commit(put("a", "1")).await {
            Ok(_) => "done".to_string(),
            Err(error) => format!("{:?} {}", error.reason(), error.is_indeterminate()),
        });
    }
    (answers, inner.current_revision().await.unwrap())
}

#[tokio::test]
async fn faults_come_from_the_seed() {
    let faults = Faults { refuse: 0.2, lose_answer: 0.2, lose_commit: 0.2, ..Faults::default() };
    let (answers, happened) = suffered(7, faults).await;
    assert_eq!((answers.clone(), happened), suffered(7, faults).await);
    assert_ne!(answers, suffered(8, faults).await.0);
    let count = |what: &str| answers.iter().filter(|answer| *answer == what).count() as u64;
    let (done, refused, lost) = (count("done"), count("Unavailable false"), count("Timeout true"));
    assert!(done > 0 && refused > 0 && lost > 0 && done + refused + lost == 100, "{answers:?}");
    assert!(happened > done && happened < done + lost, "{happened} of {answers:?}");
}

#[tokio::test]
async fn a_cut_watch_ends() {
    let inner = memory();
    inner.commit(put("a", "1")).await.unwrap();
    let store = FaultyStore::new(inner, 7, Faults { cut_watch: 1.0, ..Faults::default() });
    let mut watch = store.watch(KeyRange::prefix(""), 1).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap_err().reason(), Reason::Unavailable);
    assert!(watch.next().await.is_none());
}

/// Encrypts `conformance/` and `secrets/`; the first id writes.
fn encrypted(store: Arc<dyn Store>, ids: &[&str]) -> EncryptedStore {
    let keys = ids.iter().map(|id| EncryptionKey::new(*id, [id.as_bytes()[0]; 32]).unwrap());
    EncryptedStore::new(store, keys, ["conformance/", "secrets/"]).unwrap()
}

async fn raw(store: &Arc<dyn Store>, key: &'static str) -> String {
    String::from_utf8_lossy(&store.get(key.into()).await.unwrap().unwrap().value).into_owned()
}

async fn read(store: &EncryptedStore, key: &'static str) -> Result<String, Reason> {
    let found = store.get(key.into()).await.map_err(|error| error.reason())?;
    Ok(String::from_utf8_lossy(&found.unwrap().value).into_owned())
}

#[tokio::test]
async fn only_chosen_values_are_encrypted() {
    let inner = memory();
    let store = encrypted(inner.clone(), &["a"]);
    store.commit(put("secrets/x", "password")).await.unwrap();
    store.commit(put("secrets/x", "password")).await.unwrap();
    store.commit(put("pods/x", "plain")).await.unwrap();
    let sealed = raw(&inner, "secrets/x").await;
    assert!(sealed.starts_with("kubewright:aes256gcm:v1:a:") && !sealed.contains("password"), "{sealed}");
    assert_eq!(raw(&inner, "pods/x").await, "plain");
    assert_eq!(read(&store, "secrets/x").await.unwrap(), "password");
    let batch = store.watch(KeyRange::prefix(""), 2).await.unwrap().next().await.unwrap().unwrap();
    match &batch.events[0] {
        Event::Put { item, previous: Some(previous) } => {
            assert_eq!((&item.value[..], &previous.value[..]), (&b"password"[..], &b"password"[..]));
        }
        other => panic!("{other:?}"),
    }
    let stale = Commit { compares: vec![Compare { key: "secrets/x".into(), mod_revision: 1 }], ops: vec![] };
    match store.commit(stale).await.unwrap() {
        CommitOutcome::Refused { current } => assert_eq!(current[0].as_ref().unwrap().value, "password"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn keys_rotate() {
    let inner = memory();
    inner.commit(put("secrets/old", "plain")).await.unwrap();
    encrypted(inner.clone(), &["a"]).commit(put("secrets/x", "1")).await.unwrap();
    let both = encrypted(inner.clone(), &["b", "a"]);
    assert_eq!(read(&both, "secrets/x").await.unwrap(), "1");
    assert_eq!(both.rotate().await.unwrap(), 2);
    assert_eq!(both.rotate().await.unwrap(), 0);
    assert!(raw(&inner, "secrets/x").await.starts_with("kubewright:aes256gcm:v1:b:"));
    let new = encrypted(inner.clone(), &["b"]).refuse_plaintext();
    let request = RangeRequest { range: KeyRange::prefix("secrets/"), limit: 0, revision: None };
    assert_eq!(new.range(request).await.unwrap().items[0].value, "plain");
    assert_eq!(read(&encrypted(inner, &["a"]), "secrets/x").await, Err(Reason::Corrupt));
}

#[tokio::test]
async fn changed_and_moved_values_are_found_out() {
    let inner = memory();
    let store = encrypted(inner.clone(), &["a"]);
    store.commit(put("secrets/x", "1")).await.unwrap();
    let sealed = inner.get("secrets/x".into()).await.unwrap().unwrap().value;
    let mut changed = sealed.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    let foreign = Commit {
        compares: vec![],
        ops: vec![
            Op::Put { key: "secrets/moved".into(), value: sealed.clone() },
            Op::Put { key: "secrets/changed".into(), value: changed.into() },
            Op::Put { key: "secrets/cut".into(), value: sealed.slice(..sealed.len() - 20) },
            Op::Put { key: "secrets/plain".into(), value: "x".into() },
        ],
    };
    inner.commit(foreign).await.unwrap();
    for key in ["secrets/moved", "secrets/changed", "secrets/cut"] {
        assert_eq!(read(&store, key).await, Err(Reason::Corrupt), "{key}");
    }
    assert_eq!(read(&store, "secrets/plain").await.unwrap(), "x");
    assert_eq!(read(&store.refuse_plaintext(), "secrets/plain").await, Err(Reason::Corrupt));
}

#[test]
fn bad_keys_are_refused() {
    for id in ["", "a:b", &"x".repeat(65)] {
        assert_eq!(EncryptionKey::new(id, [0; 32]).unwrap_err().reason(), Reason::Invalid, "{id:?}");
    }
    let none: [EncryptionKey; 0] = [];
    assert!(EncryptedStore::new(memory(), none, ["a"]).is_err());
    let twice = [EncryptionKey::new("a", [0; 32]).unwrap(), EncryptionKey::new("a", [1; 32]).unwrap()];
    assert!(EncryptedStore::new(memory(), twice, ["a"]).is_err());
}

#[tokio::test]
async fn the_way_out_and_exceptions() {
    let inner = memory();
    let store = encrypted(inner.clone(), &["a"]);
    store.commit(put("secrets/x", "password")).await.unwrap();
    let store = encrypted(inner.clone(), &["a"]).except(["secrets/open/"]);
    store.commit(put("secrets/open/y", "known")).await.unwrap();
    assert_eq!(raw(&inner, "secrets/open/y").await, "known");
    assert_eq!(read(&store, "secrets/open/y").await.unwrap(), "known");
    let out = encrypted(inner.clone(), &["a"]).write_plaintext();
    assert_eq!(read(&out, "secrets/x").await.unwrap(), "password");
    assert_eq!((out.rotate().await.unwrap(), out.rotate().await.unwrap()), (1, 0));
    assert_eq!(raw(&inner, "secrets/x").await, "password");
    out.commit(put("secrets/z", "open")).await.unwrap();
    assert_eq!(raw(&inner, "secrets/z").await, "open");
    assert_eq!((store.rotate().await.unwrap(), store.rotate().await.unwrap()), (2, 0));
    assert!(raw(&inner, "secrets/z").await.starts_with("kubewright:aes256gcm"));
    assert_eq!(raw(&inner, "secrets/open/y").await, "known");
}

/// Each way encrypts, is told apart by what stands before its values, and reads what others wrote after a change in place.
#[tokio::test]
async fn every_way_encrypts_and_scopes_change_in_place() {
    let ways = || {
        [
            ("aes128gcm", EncryptionKey::aes_gcm("k", &[1; 16])),
            ("aes192gcm", EncryptionKey::aes_gcm("k", &[1; 24])),
            ("aes256gcm", EncryptionKey::aes_gcm("k", &[1; 32])),
            ("aescbc", EncryptionKey::aes_cbc("k", &[1; 32])),
            ("secretbox", EncryptionKey::secret_box("k", &[1; 32])),
        ]
        .map(|(way, key)| (way, key.unwrap()))
    };
    let inner = memory();
    inner.commit(put("secrets/x", "in the clear")).await.unwrap();
    let store = EncryptedStore::scoped(inner.clone(), Vec::new());
    assert_eq!(read(&store, "secrets/x").await.unwrap(), "in the clear");
    for (at, (way, _)) in ways().into_iter().enumerate() {
        let mut keys = ways().map(|(_, key)| key);
        keys.rotate_left(at);
        store.set_scopes(vec![EncryptionScope::new(keys, ["secrets/"]).unwrap()]);
        assert_eq!(read(&store, "secrets/x").await.unwrap(), "in the clear", "{way} reads the one before");
        assert_eq!(store.rotate().await.unwrap(), 1, "{way}");
        let sealed = raw(&inner, "secrets/x").await;
        assert!(
            sealed.starts_with(&format!("kubewright:{way}:v1:k:")) && !sealed.contains("clear"),
            "{sealed}"
        );
        assert_eq!(read(&store, "secrets/x").await.unwrap(), "in the clear", "{way}");
        let whole = inner.get("secrets/x".into()).await.unwrap().unwrap().value;
        let cut = Op::Put { key: "secrets/cut".into(), value: whole.slice(..whole.len() - 7) };
        inner.commit(Commit { compares: vec![], ops: vec![cut] }).await.unwrap();
        assert_eq!(read(&store, "secrets/cut").await, Err(Reason::Corrupt), "{way}");
        let gone = Op::Delete { key: "secrets/cut".into() };
        inner.commit(Commit { compares: vec![], ops: vec![gone] }).await.unwrap();
    }
    for bad in [EncryptionKey::aes_gcm("k", &[1; 31]), EncryptionKey::aes_cbc("k", &[1; 8])] {
        assert_eq!(bad.unwrap_err().reason(), Reason::Invalid);
    }
    assert!(EncryptionKey::secret_box("k", &[1; 16]).is_err());
}
