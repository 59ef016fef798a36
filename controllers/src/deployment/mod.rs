//! Deployments: rolling a template out over ReplicaSets, one revision after the other.

mod plan;
mod revision;
mod status;

use crate::claim::{children_of, claim, index_children};
use crate::pods;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kubewright_core::selector::Selector;
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::client::DeleteOptions;
use kubewright_reconcile::{Action, Context, Controller, EventType, ObjectKey, Reconciler, owner};
use serde_json::json;
use status::Pass;
use std::sync::Arc;
use std::time::Duration;

/// Changes of ReplicaSets and pods within this time make one pass.
const COALESCE: Duration = Duration::from_millis(5);
/// How many old ReplicaSets are kept unless the Deployment says so.
const HISTORY_LIMIT: i32 = 10;

/// The Deployment controller.
pub fn controller() -> Controller {
    Controller::for_kind::<Deployment>("deployment")
        .coalesce(COALESCE)
        .watches::<ReplicaSet>(deployments_of)
        .watches::<Pod>(waiting_for)
        .concurrency(8)
        .reports_as("deployment-controller")
        .with(Deployments)
}

fn deployments_of(set: &ReplicaSet, cx: &Context) -> Vec<ObjectKey> {
    if owner::controller_of(&set.metadata).is_some() {
        return owner::controller_key::<Deployment, ReplicaSet>(set).into_iter().collect();
    }
    let Some(labels) = set.metadata.labels.as_ref().filter(|l| !l.is_empty()) else {
        return Vec::new();
    };
    let all = cx.informers().of::<Deployment>().list_in(set.namespace().unwrap_or(""));
    let wants = |d: &&Arc<Deployment>| selector_of(d).is_ok_and(|s| s.matches(labels));
    all.iter().filter(wants).map(|d| ObjectKey::of(&**d)).collect()
}

/// Only `Recreate` looks at pods: it waits until the last old one is gone.
fn waiting_for(pod: &Pod, cx: &Context) -> Vec<ObjectKey> {
    if pods::is_active(pod) {
        return Vec::new();
    }
    let set = owner::controller_key::<ReplicaSet, Pod>(pod);
    let set = set.and_then(|key| cx.informers().of::<ReplicaSet>().get_key(&key));
    let key = set.and_then(|set| owner::controller_key::<Deployment, ReplicaSet>(&set));
    let deployment = key.and_then(|key| cx.informers().of::<Deployment>().get_key(&key));
    deployment.filter(|d| plan::is_recreate(d)).map(|d| ObjectKey::of(&*d)).into_iter().collect()
}

fn selector_of(deployment: &Deployment) -> Result<Selector, ApiError> {
    let selector = deployment.spec.as_ref().map(|s| &s.selector);
    Selector::from_label_selector(selector).map_err(|e| ApiError::bad_request(e.to_string()))
}

struct Deployments;

impl Reconciler<Deployment> for Deployments {
    type Error = ApiError;

    async fn reconcile(&self, deployment: Arc<Deployment>, cx: &Context) -> Result<Action, ApiError> {
        let selector = selector_of(&deployment)?;
        if selector.is_everything() || selector.is_nothing() {
            let note = "This deployment is selecting all pods. A non-empty selector is required.";
            cx.events().event(&*deployment, EventType::Warning, "SelectingAll", "Selecting", note);
            return Ok(Action::Done);
        }
        let informer = cx.informers().of::<ReplicaSet>();
        index_children(&informer);
        let sets = claim(cx, &*deployment, &selector, &informer).await?;
        Rollout::new(cx, &deployment, sets).run().await
    }
}

/// One pass over one Deployment.
struct Rollout<'a> {
    cx: &'a Context,
    deployment: &'a Deployment,
    new: Option<Arc<ReplicaSet>>,
    /// All but the new one.
    old: Vec<Arc<ReplicaSet>>,
    created: bool,
    create_error: Option<String>,
}

impl<'a> Rollout<'a> {
    fn new(cx: &'a Context, deployment: &'a Deployment, sets: Vec<Arc<ReplicaSet>>) -> Self {
        let new = revision::find_new(deployment, &sets);
        let uid = new.as_ref().map(|s| s.uid().to_owned());
        let old = sets.into_iter().filter(|s| Some(s.uid()) != uid.as_deref()).collect();
        Rollout { cx, deployment, new, old, created: false, create_error: None }
    }

    async fn run(mut self) -> Result<Action, ApiError> {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            return self.finish(false).await;
        }
        let paused = status::is_paused(self.deployment);
        self.renew_revision().await?;
        if paused || self.is_scaling() {
            self.scale().await?;
            self.clean_up().await?;
            return self.finish(false).await;
        }
        match plan::is_recreate(self.deployment) {
            true => self.recreate().await?,
            false => self.roll().await?,
        }
        self.clean_up().await?;
        self.finish(true).await
    }

    fn all(&self) -> Vec<Arc<ReplicaSet>> {
        self.old.iter().cloned().chain(self.new.clone()).collect()
    }

    async fn recreate(&mut self) -> Result<(), ApiError> {
        let mut shrunk = false;
        for set in self.old.clone().iter().filter(|s| plan::replicas(s) > 0) {
            self.resize(set, 0).await?;
            shrunk = true;
        }
        if shrunk || self.old_pods_remain() {
            return Ok(());
        }
        self.ensure_new().await?;
        self.grow_new().await
    }

    fn old_pods_remain(&self) -> bool {
        let all = self.cx.informers().of::<Pod>();
        let remain =
            |set: &Arc<ReplicaSet>| children_of(&all, set.uid()).iter().any(|p| !pods::is_terminal(p));
        self.old.iter().any(remain)
    }

    async fn roll(&mut self) -> Result<(), ApiError> {
        self.ensure_new().await?;
        let before = self.new.as_ref().map(|n| plan::replicas(n));
        self.grow_new().await?;
        let Some(new) = self.new.clone().filter(|n| Some(plan::replicas(n)) == before) else {
            return Ok(());
        };
        for (set, size) in plan::scale_down_old(self.deployment, &new, &self.old) {
            self.resize(&set, size).await?;
        }
        Ok(())
    }

    async fn grow_new(&mut self) -> Result<(), ApiError> {
        let Some(new) = self.new.clone() else {
            return Ok(());
        };
        let present = plan::replicas(&new);
        let size = plan::new_set_replicas(self.deployment, &self.all(), present);
        if size != present {
            self.resize(&new, size).await?;
        }
        Ok(())
    }

    /// Whether `spec.replicas` changed since the ReplicaSets were sized last.
    fn is_scaling(&self) -> bool {
        let want = plan::wanted(self.deployment);
        let resized = |s: &Arc<ReplicaSet>| {
            plan::replicas(s) > 0
                && revision::annotation(s, revision::DESIRED).is_some_and(|d: i32| d != want)
        };
        self.all().iter().any(resized)
    }

    async fn scale(&mut self) -> Result<(), ApiError> {
        let all = self.all();
        let active: Vec<_> = all.iter().filter(|s| plan::replicas(s) > 0).cloned().collect();
        let want = plan::wanted(self.deployment);
        if active.len() <= 1 {
            let latest = || plan::by_creation(&self.old).into_iter().next_back();
            if let Some(only) = active.into_iter().next().or(self.new.clone()).or_else(latest) {
                self.resize(&only, want).await?;
            }
            return Ok(());
        }
        if let Some(new) = self.new.clone().filter(|n| is_saturated(self.deployment, n)) {
            for set in active.iter().filter(|s| s.uid() != new.uid()) {
                self.resize(set, 0).await?;
            }
            return Ok(());
        }
        if plan::is_recreate(self.deployment) {
            return Ok(());
        }
        let base = |set: &ReplicaSet| revision::annotation(set, revision::MAX).unwrap_or(0);
        for (set, size) in plan::proportional(self.deployment, &active, base) {
            self.resize(&set, size).await?;
        }
        Ok(())
    }

    /// Gives a ReplicaSet a size, and notes what the Deployment wanted then; nothing is written when both are so already.
    async fn resize(&mut self, set: &Arc<ReplicaSet>, size: i32) -> Result<(), ApiError> {
        let annotations = revision::replica_annotations(self.deployment);
        let noted = annotations
            .iter()
            .all(|(k, v)| set.metadata.annotations.as_ref().and_then(|a| a.get(k)) == Some(v));
        let from = plan::replicas(set);
        if noted && from == size {
            return Ok(());
        }
        let [(desired, d), (max, m)] = annotations;
        let patch = json!({
            "metadata": {"resourceVersion": set.metadata.resource_version, "annotations": {desired: d, max: m}},
            "spec": {"replicas": size},
        });
        let changed = self.cx.merge(&**set, patch).await?;
        if from != size {
            let direction = if size > from { "up" } else { "down" };
            let note = format!("Scaled {direction} replica set {} from {from} to {size}", set.name());
            self.tell("ScalingReplicaSet", &note);
        }
        self.put(changed);
        Ok(())
    }

    fn tell(&self, reason: &str, note: &str) {
        self.cx.events().event(self.deployment, EventType::Normal, reason, reason, note);
    }

    /// Takes over the new state of a ReplicaSet.
    fn put(&mut self, changed: Arc<ReplicaSet>) {
        if self.new.as_ref().is_some_and(|n| n.uid() == changed.uid()) {
            self.new = Some(changed);
        } else if let Some(place) = self.old.iter_mut().find(|s| s.uid() == changed.uid()) {
            *place = changed;
        }
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(|s| revision::revision(s)).max().unwrap_or(0) + 1
    }

    /// Brings the new ReplicaSet's revision, annotations and `minReadySeconds` up to date, and the Deployment's own revision.
    async fn renew_revision(&mut self) -> Result<(), ApiError> {
        let Some(new) = self.new.clone() else {
            return Ok(());
        };
        let annotations = revision::renewed_annotations(self.deployment, &new, self.next_revision());
        let min_ready = self.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
        let own = new.spec.as_ref().and_then(|s| s.min_ready_seconds);
        if annotations.is_some() || min_ready.unwrap_or(0) != own.unwrap_or(0) {
            let mut patch = json!({
                "metadata": {"resourceVersion": new.metadata.resource_version},
                "spec": {"minReadySeconds": min_ready},
            });
            if let Some(annotations) = annotations {
                patch["metadata"]["annotations"] = json!(annotations);
            }
            let changed = self.cx.merge(&*new, patch).await?;
            self.put(changed);
        }
        self.note_revision().await
    }

    async fn note_revision(&self) -> Result<(), ApiError> {
        let Some(new) = &self.new else {
            return Ok(());
        };
        let number = revision::revision(new).to_string();
        let own = self.deployment.metadata.annotations.as_ref().and_then(|a| a.get(revision::REVISION));
        if own != Some(&number) {
            let patch = json!({"metadata": {"annotations": {revision::REVISION: number}}});
            self.cx.merge(self.deployment, patch).await?;
        }
        Ok(())
    }

    async fn ensure_new(&mut self) -> Result<(), ApiError> {
        if self.new.is_some() {
            return Ok(());
        }
        let set = revision::new_set(self.deployment, self.next_revision(), &self.old)?;
        let api = self.cx.api::<ReplicaSet>(self.deployment.namespace().unwrap_or(""));
        match api.create(&set).await {
            Ok(created) => {
                let note = format!(
                    "Scaled up replica set {} from 0 to {}",
                    created.name(),
                    plan::replicas(&created)
                );
                self.tell("ScalingReplicaSet", &note);
                self.new = Some(created);
                self.created = true;
                self.note_revision().await
            }
            Err(e) if e.is_already_exists() => self.meet(set.name()).await,
            Err(e) => {
                self.create_error = Some(e.to_string());
                let note = format!("Failed to create new replica set {:?}: {e}", set.name());
                let (kind, reason) = (EventType::Warning, "ReplicaSetCreateError");
                self.cx.events().event(self.deployment, kind, reason, "Creating", &note);
                self.finish(false).await?;
                Err(e)
            }
        }
    }

    /// The name is taken: by this Deployment's own ReplicaSet (another pass will see it), or by chance, which the collision count ends.
    async fn meet(&mut self, name: &str) -> Result<(), ApiError> {
        let api = self.cx.api::<ReplicaSet>(self.deployment.namespace().unwrap_or(""));
        let other = api.get(name).await?;
        let template = self.deployment.spec.as_ref().map(|s| &s.template);
        let same = template.is_some_and(|t| revision::has_template(&other, t));
        if same && owner::is_controlled_by(&other.metadata, self.deployment) {
            self.new = Some(other);
            return self.note_revision().await;
        }
        let old = self.deployment.status.clone().unwrap_or_default();
        let mut counted = old.clone();
        counted.collision_count = Some(old.collision_count.unwrap_or(0) + 1);
        self.cx.patch_status(self.deployment, &old, &counted).await?;
        Err(ApiError::already_exists("apps", "replicasets", name))
    }

    /// Deletes old ReplicaSets beyond the history limit, once the rollout is complete.
    async fn clean_up(&self) -> Result<(), ApiError> {
        let status = self.deployment.status.clone().unwrap_or_default();
        if !status::is_complete(self.deployment, &status) {
            return Ok(());
        }
        let limit =
            self.deployment.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(HISTORY_LIMIT);
        if limit == i32::MAX {
            return Ok(());
        }
        let mut idle: Vec<_> = self.old.iter().filter(|s| s.metadata.deletion_timestamp.is_none()).collect();
        idle.sort_by_key(|s| revision::revision(s));
        let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let api = self.cx.api::<ReplicaSet>(self.deployment.namespace().unwrap_or(""));
        for set in idle.into_iter().take(surplus).filter(|s| is_idle(s)) {
            let options = DeleteOptions { uid: Some(set.uid().to_owned()), ..DeleteOptions::default() };
            match api.delete(set.name(), &options).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    async fn finish(&self, judge_progress: bool) -> Result<Action, ApiError> {
        let created = self.new.as_ref().filter(|_| self.created);
        let pass = Pass {
            created: created.map(|s| s.name()),
            create_error: self.create_error.as_deref(),
            judge_progress,
        };
        let new = self.new.as_deref();
        let status = status::status_of(self.deployment, new, &self.all(), pass, self.cx.time());
        let old = self.deployment.status.clone().unwrap_or_default();
        match self.cx.patch_status(self.deployment, &old, &status).await {
            Err(e) if e.is_not_found() => return Ok(Action::Done),
            other => other?,
        };
        Ok(match status::check_in(self.deployment, &status, self.cx.now()) {
            Some(delay) => Action::RequeueAfter(delay),
            None => Action::Done,
        })
    }
}

/// Whether the new ReplicaSet has, and was meant to have, all replicas, and they are available.
fn is_saturated(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let want = plan::wanted(deployment);
    let desired: Option<i32> = revision::annotation(set, revision::DESIRED);
    plan::replicas(set) == want && desired == Some(want) && plan::available(set) == want
}

/// Whether a ReplicaSet has no pods, and its controller says so of its present generation.
fn is_idle(set: &ReplicaSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    plan::replicas(set) == 0
        && status.replicas == 0
        && status.observed_generation.unwrap_or(0) >= set.metadata.generation.unwrap_or(0)
}
