//! The garbage collector: objects whose owners are gone go too, in the way that the deletion asked for.
//!
//! It follows the metadata of every resource that the server discovers, custom ones included, keeps the graph of owner references,
//! and asks the server itself before it deletes: a graph may be behind, an answer is not.

mod graph;

use crate::discovery::{Discovered, discover};
use futures::StreamExt;
use graph::{FOREGROUND, Graph, Node, ORPHAN, Verdict};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kubewright_core::{ApiError, ContentType, GroupVersionResource};
use kubewright_reconcile::client::{Api, DeleteOptions};
use kubewright_reconcile::queue::Work;
use kubewright_reconcile::{
    CancellationToken, Change, Context, Controller, Informer, PartialObject, QueueOptions, WorkQueue,
};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Between looks at discovery, for resources that came or went.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(5);
/// Objects worked on at once.
const IN_FLIGHT_MAX: usize = 64;
/// Resources that own nothing, are owned by nothing, and change all the time.
const IGNORED: &[(&str, &str)] = &[("", "events"), ("events.k8s.io", "events")];

/// The garbage collector.
pub fn controller() -> Controller {
    Controller::from_fn("garbage-collector", |cx| async move {
        let cancel = cx.cancel().clone();
        let collector = Arc::new(Collector {
            cx,
            graph: Mutex::default(),
            kinds: Mutex::default(),
            queue: WorkQueue::new(QueueOptions::default()),
        });
        cancel.run_until_cancelled(collector.run()).await;
    })
}

struct Collector {
    cx: Context,
    graph: Mutex<Graph>,
    /// How an owner reference's group and kind is requested.
    kinds: Mutex<BTreeMap<(String, String), Discovered>>,
    queue: WorkQueue<SmolStr>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Collector {
    async fn run(self: Arc<Self>) {
        let mut monitors: FxHashMap<GroupVersionResource, (Informer<PartialObject>, CancellationToken)> =
            FxHashMap::default();
        let mut tasks = JoinSet::new();
        // Deleting by half a graph would only cost requests, yet a first full view spares nearly all of them.
        self.follow_discovery(&mut monitors, &mut tasks).await;
        for (informer, _) in monitors.values() {
            let _ = tokio::time::timeout(Duration::from_secs(30), informer.synced()).await;
        }
        let work = self.clone().work();
        tokio::pin!(work);
        loop {
            tokio::select! {
                () = &mut work => return,
                () = tokio::time::sleep(DISCOVERY_PERIOD) => {}
            }
            self.follow_discovery(&mut monitors, &mut tasks).await;
        }
    }

    /// Starts and stops following as resources come and go.
    async fn follow_discovery(
        self: &Arc<Self>,
        monitors: &mut FxHashMap<GroupVersionResource, (Informer<PartialObject>, CancellationToken)>,
        tasks: &mut JoinSet<()>,
    ) {
        let mut discovery = match discover(self.cx.client()).await {
            Ok(discovery) => discovery,
            Err(e) => return tracing::info!(error = %e, "discovery failed"),
        };
        let found = std::mem::take(&mut discovery.found);
        let ignored =
            |d: &Discovered| IGNORED.contains(&(d.resource.group.as_str(), d.resource.resource.as_str()));
        let wanted: BTreeMap<_, _> =
            found.into_iter().filter(|d| d.watched && !ignored(d)).map(|d| (d.resource.clone(), d)).collect();
        monitors.retain(|resource, (informer, cancel)| {
            if wanted.contains_key(resource) || discovery.lacks(&resource.group) {
                return true;
            }
            cancel.cancel();
            self.cx.informers().stop(informer);
            // A resource goes after its objects; whose end was not seen before it did is gone all the same.
            for uid in locked(&self.graph).remove_resource(resource) {
                let _ = self.queue.add(uid);
            }
            false
        });
        for resource in wanted.keys() {
            if !monitors.contains_key(resource) {
                let informer = self.cx.informers().metadata(resource.clone());
                let cancel = CancellationToken::new();
                let follow = self.clone().follow(resource.clone(), informer.clone());
                let token = cancel.clone();
                tasks.spawn(async move {
                    token.run_until_cancelled(follow).await;
                });
                monitors.insert(resource.clone(), (informer, cancel));
            }
        }
        let mut kinds = locked(&self.kinds);
        kinds.retain(|(group, _), _| discovery.lacks(group));
        kinds.extend(wanted.into_values().map(|d| ((d.resource.group.to_string(), d.kind.clone()), d)));
        drop(kinds);
        while tasks.try_join_next().is_some() {}
    }

    /// Brings the changes of one resource into the graph.
    async fn follow(self: Arc<Self>, resource: GroupVersionResource, informer: Informer<PartialObject>) {
        let mut changes = informer.subscribe();
        while let Some(change) = changes.next().await {
            let affected = {
                let mut graph = locked(&self.graph);
                match &change {
                    Change::Applied { object, .. } => {
                        let uid = SmolStr::new(object.metadata.uid.as_deref().unwrap_or(""));
                        graph.put(uid, Node::new(resource.clone(), &object.metadata))
                    }
                    Change::Deleted(object) => graph.remove(object.metadata.uid.as_deref().unwrap_or("")),
                }
            };
            for uid in affected {
                while self.queue.add(uid.clone()).is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn work(self: Arc<Self>) {
        let slots = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let mut passes = JoinSet::new();
        while let (Ok(slot), Some(work)) = (slots.clone().acquire_owned().await, self.queue.get().await) {
            let collector = self.clone();
            passes.spawn(async move {
                collector.pass(work).await;
                drop(slot);
            });
            while passes.try_join_next().is_some() {}
        }
    }

    async fn pass(&self, work: Work<SmolStr>) {
        match self.settle(work.key()).await {
            Ok(()) => work.succeed(),
            Err(e) => {
                tracing::debug!(uid = %work.key(), error = %e, "garbage collection tries again");
                work.fail();
            }
        }
    }

    async fn settle(&self, uid: &SmolStr) -> Result<(), ApiError> {
        let (node, verdict, blocking, dependents) = {
            let graph = locked(&self.graph);
            let Some(node) = graph.get(uid).cloned() else {
                return Ok(());
            };
            (node, graph.verdict(uid), graph.blocking(uid), graph.dependents(uid))
        };
        match verdict {
            Verdict::Nothing => Ok(()),
            Verdict::OrphanDependents => {
                self.orphan(uid, &dependents).await?;
                self.drop_finalizer(uid, &node, ORPHAN).await
            }
            Verdict::DeleteDependents => {
                for dependent in blocking {
                    let _ = self.queue.add(dependent);
                }
                Ok(())
            }
            Verdict::FinishForeground => {
                for dependent in dependents {
                    let _ = self.queue.add(dependent);
                }
                self.drop_finalizer(uid, &node, FOREGROUND).await
            }
            Verdict::ByOwners { solid, dangling, waiting } => {
                self.by_owners(uid, &node, solid, dangling, waiting).await
            }
        }
    }

    async fn by_owners(
        &self,
        uid: &SmolStr,
        node: &Node,
        mut solid: bool,
        dangling: Vec<OwnerReference>,
        waiting: Vec<String>,
    ) -> Result<(), ApiError> {
        let mut gone = Vec::new();
        for owner in dangling {
            match self.exists(node, &owner).await? {
                true => solid = true,
                false => gone.push(owner.uid),
            }
        }
        if solid {
            gone.extend(waiting);
            return if gone.is_empty() { Ok(()) } else { self.drop_owners(uid, node, &gone).await };
        }
        if !waiting.is_empty() {
            // What it owns itself shall go first only where someone waits for that.
            let (mine, circle) = {
                let graph = locked(&self.graph);
                (graph.blocking(uid), graph.closes_circle(uid))
            };
            if circle {
                // The change comes back through the graph and brings the next look.
                return self.unblock_owners(uid, node).await;
            }
            let policy = if mine.is_empty() { None } else { Some("Foreground") };
            return self.delete(uid, node, policy).await;
        }
        if gone.is_empty() {
            return Ok(());
        }
        let policy =
            match node.finalizers.iter().map(String::as_str).find(|f| [ORPHAN, FOREGROUND].contains(f)) {
                Some(ORPHAN) => "Orphan",
                Some(_) => "Foreground",
                None => "Background",
            };
        self.delete(uid, node, Some(policy)).await
    }

    /// Whether an owner exists, asked at the server. A kind that nobody serves counts as existing: it may only be away for a while.
    async fn exists(&self, node: &Node, owner: &OwnerReference) -> Result<bool, ApiError> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let kind = locked(&self.kinds).get(&(group.to_owned(), owner.kind.clone())).cloned();
        let Some(kind) = kind else {
            return Err(ApiError::unavailable(format!("nobody serves {} {}", owner.api_version, owner.kind)));
        };
        if kind.namespaced && node.key.namespace.is_empty() {
            // A cluster-scoped object cannot be owned by one in a namespace; upstream leaves it alone.
            return Ok(true);
        }
        let namespace = Some(node.key.namespace.as_str()).filter(|_| kind.namespaced);
        let api =
            Api::<Value>::dynamic(self.cx.client().clone(), kind.resource.clone(), &kind.kind, namespace);
        Ok(api.get_opt(&owner.name).await?.is_some_and(|o| o["metadata"]["uid"].as_str() == Some(&owner.uid)))
    }

    fn api(&self, node: &Node) -> Api<Value> {
        let namespace = node.key.namespace_opt();
        Api::dynamic(self.cx.client().clone(), node.resource.clone(), "", namespace)
    }

    /// Deletes an object that still is what the graph says.
    async fn delete(
        &self,
        uid: &SmolStr,
        node: &Node,
        propagation_policy: Option<&'static str>,
    ) -> Result<(), ApiError> {
        let api = self.api(node);
        let Some(present) = api.get_opt(&node.key.name).await? else {
            return Ok(());
        };
        let meta = &present["metadata"];
        let same = meta["uid"].as_str() == Some(uid) && meta["deletionTimestamp"].is_null();
        let owners: Vec<OwnerReference> =
            serde_json::from_value(meta["ownerReferences"].clone()).unwrap_or_default();
        if !same || owners != node.owners {
            // The change is on its way into the graph and will bring another look.
            return Ok(());
        }
        let options = DeleteOptions {
            uid: Some(uid.to_string()),
            resource_version: meta["resourceVersion"].as_str().map(str::to_owned),
            propagation_policy: propagation_policy.or(Some("Background")),
            ..DeleteOptions::default()
        };
        match api.delete(&node.key.name, &options).await {
            Err(e) if e.is_not_found() => Ok(()),
            other => other,
        }
    }

    async fn orphan(&self, uid: &SmolStr, dependents: &[SmolStr]) -> Result<(), ApiError> {
        let calls = dependents.iter().map(|dependent| async move {
            let node = locked(&self.graph).get(dependent).cloned();
            match node {
                Some(node) => self.drop_owners(dependent, &node, &[uid.to_string()]).await,
                None => Ok(()),
            }
        });
        let calls: Vec<_> = calls.collect();
        let results: Vec<_> = futures::stream::iter(calls).buffer_unordered(IN_FLIGHT_MAX).collect().await;
        results.into_iter().collect()
    }

    /// Takes owner references out of an object.
    async fn drop_owners(&self, uid: &SmolStr, node: &Node, owners: &[String]) -> Result<(), ApiError> {
        self.edit(uid, node, |meta| {
            let mut all: Vec<Value> = meta["ownerReferences"].as_array().cloned().unwrap_or_default();
            all.retain(|o| !owners.iter().any(|uid| o["uid"] == uid.as_str()));
            json!({"ownerReferences": all})
        })
        .await
    }

    /// Lets the owners of an object go before it.
    async fn unblock_owners(&self, uid: &SmolStr, node: &Node) -> Result<(), ApiError> {
        self.edit(uid, node, |meta| {
            let mut all: Vec<Value> = meta["ownerReferences"].as_array().cloned().unwrap_or_default();
            for owner in &mut all {
                owner["blockOwnerDeletion"] = json!(false);
            }
            json!({"ownerReferences": all})
        })
        .await
    }

    async fn drop_finalizer(&self, uid: &SmolStr, node: &Node, finalizer: &str) -> Result<(), ApiError> {
        self.edit(uid, node, |meta| {
            let mut all: Vec<Value> = meta["finalizers"].as_array().cloned().unwrap_or_default();
            all.retain(|f| f != finalizer);
            json!({"finalizers": all})
        })
        .await
    }

    /// Patches the metadata of the present version of an object.
    async fn edit(
        &self,
        uid: &SmolStr,
        node: &Node,
        change: impl Fn(&Value) -> Value,
    ) -> Result<(), ApiError> {
        let api = self.api(node);
        let Some(present) = api.get_opt(&node.key.name).await? else {
            return Ok(());
        };
        if present["metadata"]["uid"].as_str() != Some(uid) {
            return Ok(());
        }
        let mut meta = change(&present["metadata"]);
        meta["resourceVersion"] = present["metadata"]["resourceVersion"].clone();
        meta["uid"] = json!(uid);
        match api.patch(&node.key.name, ContentType::MergePatch, json!({"metadata": meta})).await {
            Err(e) if e.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}
