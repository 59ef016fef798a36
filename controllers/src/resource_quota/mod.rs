//! Resource quotas: what each namespace uses, counted anew where objects come, go or change.
//!
//! The admission of the same name charges a quota as objects are written; this controller fills a quota in at first, gives back what
//! was deleted and corrects what a failed write left charged. It follows a resource only while some quota counts it.

mod source;

use crate::discovery::discover;
use k8s_openapi::api::core::v1::ResourceQuota;
use kubewright_core::quota::{Amounts, Counter, ScopeTerm, counted_resources};
use kubewright_core::{ApiError, ContentType, GroupVersionResource, Resource, Verb};
use kubewright_reconcile::queue::Work;
use kubewright_reconcile::{
    Change, Context, Controller, Informer, ObjectKey, PartialObject, QueueOptions, WorkQueue,
};
use serde_json::{Value, json};
use source::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// Between counts of everything, whatever was heard.
const RESYNC: Duration = Duration::from_secs(300);
/// How long changes gather before they are counted.
const GATHER: Duration = Duration::from_millis(200);
/// Between looks for a resource that is not served yet.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(5);
const SYNC_WAIT: Duration = Duration::from_secs(30);

/// A resource by group and plural, whatever the version.
type Named = (String, String);

/// The resource quota controller.
pub fn controller() -> Controller {
    Controller::from_fn("resource-quota", |cx| async move {
        let cancel = cx.cancel().clone();
        let counting = Arc::new(Counting {
            quotas: cx.informers().of::<ResourceQuota>(),
            cx,
            queue: WorkQueue::new(QueueOptions::default()),
            sources: Mutex::default(),
            tasks: Mutex::default(),
        });
        cancel.run_until_cancelled(counting.run()).await;
    })
}

struct Counting {
    cx: Context,
    quotas: Informer<ResourceQuota>,
    queue: WorkQueue<ObjectKey>,
    sources: Mutex<BTreeMap<Named, Source>>,
    /// Follow the sources; end with the controller.
    tasks: Mutex<JoinSet<()>>,
}

impl Counting {
    async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().follow_quotas());
        tasks.spawn(self.clone().resync());
        while let Some(work) = self.queue.get().await {
            self.pass(work).await;
        }
    }

    async fn follow_quotas(self: Arc<Self>) {
        let mut changes = self.quotas.subscribe();
        while let Some(change) = changes.next().await {
            let Change::Applied { object, old } = change else { continue };
            let spec = |q: &ResourceQuota| q.spec.clone();
            let status = |q: &ResourceQuota| q.status.clone().unwrap_or_default();
            let same = old
                .as_ref()
                .is_some_and(|old| spec(old) == spec(&object) && status(old).hard == status(&object).hard);
            let key = ObjectKey::of(&*object);
            if !same {
                self.offer(key, Duration::ZERO).await;
            } else if old.is_some_and(|old| status(&old).used != status(&object).used) {
                // What admission charged for may be gone again before anybody here heard that it came.
                self.offer(key, GATHER).await;
            }
        }
    }

    async fn resync(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RESYNC).await;
            for key in self.quotas.keys() {
                self.offer(key, Duration::ZERO).await;
            }
        }
    }

    async fn offer(&self, key: ObjectKey, wait: Duration) {
        while self.queue.add_after(key.clone(), wait).is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Wakes the quotas of a namespace that count a resource.
    async fn wake(&self, namespace: &str, resource: &Named) {
        for quota in self.quotas.list_in(namespace) {
            if wanted(&quota).contains(resource) {
                self.offer(ObjectKey::of(&*quota), GATHER).await;
            }
        }
    }

    async fn pass(self: &Arc<Self>, work: Work<ObjectKey>) {
        let Some(quota) = self.quotas.get_key(work.key()) else { return work.succeed() };
        match self.count(&quota).await {
            Ok(true) => work.succeed(),
            Ok(false) => work.again_after(DISCOVERY_PERIOD),
            Err(e) if e.is_not_found() => work.succeed(),
            Err(e) => {
                tracing::debug!(quota = %work.key(), error = %e, "a quota is counted again");
                work.fail();
            }
        }
    }

    /// Counts what a quota is about and writes it down; `false` where a resource that it names is not there yet.
    async fn count(self: &Arc<Self>, quota: &ResourceQuota) -> Result<bool, ApiError> {
        let value = serde_json::to_value(quota).map_err(ApiError::internal)?;
        let hard = Amounts::parse(&value["spec"]["hard"]);
        let scopes = ScopeTerm::of(&value["spec"]);
        let resources = counted_resources(hard.names());
        let complete = self.open(&resources).await?;
        let namespace = quota.namespace().unwrap_or("");
        let mut used = Amounts::parse(&value["status"]["used"]).only(|name| hard.get(name).is_some());
        for (group, plural) in &resources {
            let named = (group.clone(), plural.clone());
            let source = self.sources().get(&named).cloned();
            let (Some(source), Some(counter)) = (source, Counter::of(group, plural)) else { continue };
            let usage = source.usage(&counter, namespace, &scopes, self.cx.now())?;
            for name in hard.names().filter(|name| counter.counts(name)) {
                used.set(name, usage.get(name).copied().unwrap_or_default());
            }
        }
        let status = json!({"hard": hard.to_value(), "used": used.to_value()});
        if value["status"] != status {
            self.write(quota, value, status).await?;
        }
        Ok(complete)
    }

    async fn write(&self, quota: &ResourceQuota, mut value: Value, status: Value) -> Result<(), ApiError> {
        value["status"] = status;
        let api = self.cx.api::<ResourceQuota>(quota.namespace().unwrap_or(""));
        let request = api.request(Verb::Update, Some(quota.name())).subresource("status");
        self.cx.client().send(request.body(ContentType::Json, value)).await.map(drop)
    }

    fn sources(&self) -> std::sync::MutexGuard<'_, BTreeMap<Named, Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows these resources from now on; `false` where one is not served.
    async fn open(self: &Arc<Self>, resources: &BTreeSet<Named>) -> Result<bool, ApiError> {
        let unknown = |named: &&Named| !self.sources().contains_key(*named);
        let missing: Vec<Named> = resources.iter().filter(unknown).cloned().collect();
        if missing.is_empty() {
            return Ok(true);
        }
        let served: BTreeMap<Named, GroupVersionResource> = discover(self.cx.client())
            .await?
            .found
            .into_iter()
            .filter(|d| d.namespaced && d.watched)
            .map(|d| ((d.resource.group.to_string(), d.resource.resource.to_string()), d.resource))
            .collect();
        let mut complete = true;
        for named in missing {
            let found = served.get(&named).cloned().zip(Counter::of(&named.0, &named.1));
            let Some((resource, counter)) = found else {
                complete = false;
                continue;
            };
            let source = Source::open(&self.cx, &counter, resource);
            let synced = tokio::time::timeout(SYNC_WAIT, source.synced()).await;
            if !matches!(synced, Ok(true)) {
                return Err(ApiError::unavailable(format!("{} can't be listed", named.1)));
            }
            self.follow_source(&named, &source);
            self.sources().insert(named, source);
        }
        Ok(complete)
    }

    fn follow_source(self: &Arc<Self>, named: &Named, source: &Source) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let (this, named) = (self.clone(), named.clone());
        match source.clone() {
            Source::Pods(informer) => tasks
                .spawn(this.follow(informer, named, |old, new, cx| source::pod_counts(old, new, cx.now()))),
            Source::Services(informer) => {
                tasks.spawn(this.follow(informer, named, |old, new, _| old.spec != new.spec))
            }
            Source::VolumeClaims(informer) => tasks.spawn(
                this.follow(informer, named, |old, new, _| old.spec != new.spec || old.status != new.status),
            ),
            Source::DeviceClaims(informer) => {
                tasks.spawn(this.follow(informer, named, |old, new, _| old.spec != new.spec))
            }
            Source::Objects(informer) => tasks.spawn(this.follow_metadata(informer, named)),
        };
    }

    /// Wakes the quotas of each object that comes, goes, or changes what it uses.
    async fn follow<K: Resource>(
        self: Arc<Self>,
        informer: Informer<K>,
        named: Named,
        counts: fn(&K, &K, &Context) -> bool,
    ) {
        let mut changes = informer.subscribe();
        while let Some(change) = changes.next().await {
            let (object, matters) = match &change {
                Change::Applied { object, old } => {
                    (object, old.as_ref().is_none_or(|old| counts(old, object, &self.cx)))
                }
                Change::Deleted(object) => (object, true),
            };
            if matters {
                self.wake(object.namespace().unwrap_or(""), &named).await;
            }
        }
    }

    async fn follow_metadata(self: Arc<Self>, informer: Informer<PartialObject>, named: Named) {
        let mut changes = informer.subscribe();
        while let Some(change) = changes.next().await {
            let object = match &change {
                Change::Applied { old: Some(_), .. } => continue,
                Change::Applied { object, .. } | Change::Deleted(object) => object,
            };
            self.wake(object.metadata.namespace.as_deref().unwrap_or(""), &named).await;
        }
    }
}

fn wanted(quota: &ResourceQuota) -> BTreeSet<Named> {
    let hard = quota.spec.as_ref().and_then(|s| s.hard.as_ref());
    counted_resources(hard.into_iter().flatten().map(|(name, _)| name.as_str()))
}

#[cfg(test)]
mod tests;
