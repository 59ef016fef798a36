//! A store of one's own: a wrapper that keeps a journal of who wrote what, passing the conformance suite, with a plane on top.
//!
//! A store from scratch implements the same trait; the suite judges both alike.

use bytes::Bytes;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Namespace;
use kubewright::client::Api;
use kubewright::store::conformance::Conformance;
use kubewright::store::{
    Capabilities, Commit, CommitOutcome, Error, KeyRange, KeyValue, MemoryStore, RangeRequest, RangeResponse,
    Revision, Store, WatchStream,
};
use kubewright::{ControlPlane, bundles, parts};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How many entries the journal keeps; older ones are dropped.
const ENTRIES_MAX: usize = 1000;

/// What happened, by revision.
#[derive(Default)]
struct Journal {
    entries: Mutex<std::collections::VecDeque<(Revision, String)>>,
    refused: AtomicU64,
}

impl Journal {
    fn note(&self, revision: Revision, keys: &[Bytes]) {
        let mut entries = self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for key in keys {
            if entries.len() == ENTRIES_MAX {
                entries.pop_front();
            }
            entries.push_back((revision, String::from_utf8_lossy(key).into_owned()));
        }
    }
}

/// A store that writes a journal of its commits.
struct Journaled {
    inner: Arc<dyn Store>,
    journal: Arc<Journal>,
}

impl Store for Journaled {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        self.inner.current_revision()
    }

    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<KeyValue>, Error>> {
        self.inner.get(key)
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, Error>> {
        self.inner.range(request)
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<CommitOutcome, Error>> {
        Box::pin(async move {
            let keys: Vec<Bytes> = commit.ops.iter().map(|op| op.key().clone()).collect();
            let outcome = self.inner.commit(commit).await?;
            match &outcome {
                CommitOutcome::Committed { revision } => self.journal.note(*revision, &keys),
                CommitOutcome::Refused { .. } => drop(self.journal.refused.fetch_add(1, Ordering::Relaxed)),
            }
            Ok(outcome)
        })
    }

    fn watch(&self, range: KeyRange, from: Revision) -> BoxFuture<'_, Result<WatchStream, Error>> {
        self.inner.watch(range, from)
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.compact(revision)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.close()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let suite = Conformance::new(|| async {
        let inner = Arc::new(MemoryStore::new());
        Ok(Arc::new(Journaled { inner, journal: Arc::default() }) as Arc<dyn Store>)
    });
    let report = suite.run().await;
    println!("{report}");
    if !report.passed() {
        return Err("the store does not conform".into());
    }

    let journal = Arc::new(Journal::default());
    let store = Journaled { inner: Arc::new(MemoryStore::new()), journal: journal.clone() };
    let plane =
        ControlPlane::builder().with(parts::store(store)).with(bundles::kinds()).build()?.start().await?;
    let namespaces = Api::<Namespace>::all(plane.client().clone());
    namespaces.create(&serde_json::from_value(serde_json::json!({"metadata": {"name": "shop"}}))?).await?;
    plane.shutdown().await?;
    let entries = journal.entries.lock().map_err(|e| e.to_string())?;
    for (revision, key) in entries.iter().rev().take(3) {
        println!("revision {revision}: {key}");
    }
    assert!(
        entries.iter().any(|(_, key)| key.ends_with("namespaces/shop")),
        "the namespace is in the journal"
    );
    println!("{} commits lost a race", journal.refused.load(Ordering::Relaxed));
    Ok(())
}
