//! The binding seen from a claim: it looks for a volume, waits for one to be made, or finds out that it lost its own.

use super::matching::Wish;
use super::objects::{self, *};
use super::writes::{bind, set_claim_status};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::{Action, Context, Controller, EventType, ObjectKey, Reconciler};
use rustc_hash::FxHashMap;
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How many claims one volume wakes when it becomes available; those that would not take it are not counted.
const WOKEN_MAX: usize = 32;
/// A claim that found nothing looks again after this, beside being woken by volumes and classes.
const RETRY: Duration = Duration::from_secs(60);
const PROVISIONER: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];

pub(super) fn controller() -> Controller {
    Controller::for_kind::<PersistentVolumeClaim>("persistentvolume-binder")
        .reports_as("persistentvolume-controller")
        .watches::<PersistentVolume>(concerned)
        .watches::<StorageClass>(of_class)
        .concurrency(8)
        .with(Claims::default())
}

/// The claims that a change of a volume may concern.
fn concerned(volume: &PersistentVolume, cx: &Context) -> Vec<ObjectKey> {
    let claims = objects::claims(cx);
    let mut keys: Vec<ObjectKey> = claim_ref(volume).map(claim_key).into_iter().collect();
    keys.extend(claims.by_index(OF_VOLUME, volume.name()).iter().map(|c| ObjectKey::of(&**c)));
    if claim_ref(volume).is_none() && phase_of(volume) == "Available" {
        let pending = claims.by_index(PENDING, volume_class(volume));
        let takers = pending.iter().filter(|c| Wish::of(c).takes_free(volume));
        keys.extend(takers.take(WOKEN_MAX).map(|c| ObjectKey::of(&**c)));
    }
    keys
}

/// The claims that wait for a class, and those that would get it by default.
fn of_class(class: &StorageClass, cx: &Context) -> Vec<ObjectKey> {
    let claims = objects::claims(cx);
    let of = claims.by_index(PENDING, class.name()).into_iter();
    let without = claims.by_index(PENDING, "").into_iter().filter(|c| has_no_class(c));
    of.chain(without).map(|c| ObjectKey::of(&*c)).collect()
}

/// Volumes that passes chose and the informer does not show as claimed yet: name to the claim's uid and the volume's version.
type Chosen = FxHashMap<String, (String, Option<String>)>;

#[derive(Default)]
struct Claims {
    chosen: Mutex<Chosen>,
}

impl Reconciler<PersistentVolumeClaim> for Claims {
    type Error = ApiError;

    async fn reconcile(&self, claim: Arc<PersistentVolumeClaim>, cx: &Context) -> Result<Action, ApiError> {
        let pass = Pass { cx, claim: &claim, chosen: &self.chosen };
        let result = match (annotation(&claim.metadata, BIND_COMPLETED), volume_name(&claim)) {
            (Some(_), _) => pass.bound().await,
            (None, "") => pass.unbound().await,
            (None, name) => pass.asks_for(name).await,
        };
        match result {
            // Gone, or changed since: the change wakes the claim.
            Err(e) if e.is_not_found() || e.is_conflict() => {
                Ok(Action::RequeueAfter(Duration::from_millis(50)))
            }
            other => other,
        }
    }
}

struct Pass<'a> {
    cx: &'a Context,
    claim: &'a Arc<PersistentVolumeClaim>,
    chosen: &'a Mutex<Chosen>,
}

impl Pass<'_> {
    fn tell(&self, kind: EventType, reason: &str, note: &str) {
        self.cx.events().event(&**self.claim, kind, reason, reason, note);
    }

    async fn pending(&self, then: Action) -> Result<Action, ApiError> {
        set_claim_status(self.cx, self.claim, "Pending", None).await?;
        Ok(then)
    }

    /// The claim takes any volume that serves it.
    async fn unbound(&self) -> Result<Action, ApiError> {
        let waits = waits_for_consumer(self.cx, self.claim);
        if let Some(volume) = self.choose(waits) {
            let bound = bind(self.cx, &volume, self.claim).await;
            if bound.is_err() {
                self.lock().remove(volume.name());
            }
            return bound.map(|()| Action::Done);
        }
        if has_no_class(self.claim)
            && let Some(class) = default_class(self.cx)
        {
            let patch = json!({
                "metadata": {"resourceVersion": self.claim.metadata.resource_version},
                "spec": {"storageClassName": class.name()},
            });
            return self.cx.merge(&**self.claim, patch).await.map(|_| Action::Done);
        }
        if waits && annotation(&self.claim.metadata, SELECTED_NODE).is_none() {
            self.tell_of_consumer();
            return self.pending(Action::Done).await;
        }
        if !claim_class(self.claim).is_empty() {
            return self.provision().await;
        }
        let note = "no persistent volumes available for this claim and no storage class is set";
        self.tell(EventType::Normal, "FailedBinding", note);
        self.pending(Action::RequeueAfter(RETRY)).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Chosen> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses a volume and keeps other passes from it. Where the scheduler chooses, only one that is set aside for the claim counts.
    fn choose(&self, waits: bool) -> Option<Arc<PersistentVolume>> {
        let volumes = objects::volumes(self.cx);
        let wish = Wish::of(self.claim);
        let reserved = volumes_of(self.cx, &ObjectKey::of(&**self.claim));
        let mut free = if waits { Vec::new() } else { volumes.by_index(FREE, claim_class(self.claim)) };
        let mut chosen = self.lock();
        if !free.is_empty() {
            // What the informer shows in a later version has said by then whose it is.
            chosen.retain(|name, (_, version)| {
                volumes.get("", name).is_some_and(|v| v.metadata.resource_version == *version)
            });
            free.retain(|v| chosen.get(v.name()).is_none_or(|(uid, _)| uid == self.claim.uid()));
        }
        let best = wish.best(&reserved, &free)?;
        if claim_ref(&best).is_none() {
            let value = (self.claim.uid().to_owned(), best.metadata.resource_version.clone());
            chosen.insert(best.name().to_owned(), value);
        }
        Some(best)
    }

    fn tell_of_consumer(&self) {
        let pod = waiting_pod(self.cx, &ObjectKey::of(&**self.claim));
        let (reason, note) = match pod {
            None => {
                ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned())
            }
            Some(pod) => ("WaitForPodScheduled", format!("waiting for pod {} to be scheduled", pod.name())),
        };
        self.tell(EventType::Normal, reason, &note);
    }

    /// Says to external provisioners that it is their turn.
    async fn provision(&self) -> Result<Action, ApiError> {
        let name = claim_class(self.claim);
        let Some(class) = self.cx.informers().of::<StorageClass>().get("", name) else {
            let note = format!("storageclass.storage.k8s.io {name:?} not found");
            self.tell(EventType::Warning, "ProvisioningFailed", &note);
            return Ok(Action::Done);
        };
        let provisioner = class.provisioner.as_str();
        if provisioner.starts_with("kubernetes.io/") {
            let note = format!("no volume plugin matched name: {provisioner}");
            self.tell(EventType::Warning, "ProvisioningFailed", &note);
            return Ok(Action::RequeueAfter(RETRY));
        }
        if PROVISIONER.iter().any(|a| annotation(&self.claim.metadata, a) != Some(provisioner)) {
            let [beta, ga] = PROVISIONER;
            let patch = json!({"metadata": {
                "resourceVersion": self.claim.metadata.resource_version,
                "annotations": {beta: provisioner, ga: provisioner},
            }});
            self.cx.merge(&**self.claim, patch).await?;
        }
        let note = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system \
             administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        );
        self.tell(EventType::Normal, "ExternalProvisioning", &note);
        Ok(Action::Done)
    }

    /// The claim names a volume and was never bound.
    async fn asks_for(&self, name: &str) -> Result<Action, ApiError> {
        let Some(volume) = objects::volumes(self.cx).get("", name) else {
            return self.pending(Action::Done).await;
        };
        if claim_ref(&volume).is_none() {
            if let Some(problem) = Wish::of(self.claim).misfit(&volume) {
                let note = format!("Cannot bind to requested volume {name:?}: {problem}");
                self.tell(EventType::Warning, "VolumeMismatch", &note);
                return self.pending(Action::Done).await;
            }
        } else if !is_for(&volume, self.claim) {
            let note = format!("volume {name:?} already bound to a different claim.");
            self.tell(EventType::Warning, "FailedBinding", &note);
            return self.pending(Action::Done).await;
        }
        bind(self.cx, &volume, self.claim).await.map(|()| Action::Done)
    }

    /// The claim was bound once; its volume may have gone since.
    async fn bound(&self) -> Result<Action, ApiError> {
        let name = volume_name(self.claim);
        let lost = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        if name.is_empty() {
            return self.lost("ClaimLost", lost).await;
        }
        let known = objects::volumes(self.cx).get("", name);
        let volume = match known {
            Some(volume) => Some(volume),
            // The informer of volumes may lag behind that of claims.
            None => self.cx.api::<PersistentVolume>("").get_opt(name).await?,
        };
        let Some(volume) = volume else {
            let lost = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            return self.lost("ClaimLost", lost).await;
        };
        match claim_ref(&volume) {
            Some(_) if !is_for(&volume, self.claim) => {
                let note = "Two claims are bound to the same volume, this one is bound incorrectly";
                self.lost("ClaimMisbound", note).await
            }
            _ => bind(self.cx, &volume, self.claim).await.map(|()| Action::Done),
        }
    }

    async fn lost(&self, reason: &str, note: &str) -> Result<Action, ApiError> {
        if set_claim_status(self.cx, self.claim, "Lost", None).await? {
            self.tell(EventType::Warning, reason, note);
        }
        Ok(Action::Done)
    }
}
