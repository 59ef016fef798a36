//! Claims, volumes and classes of volume attributes that are being deleted stay until nobody uses them any more.
//!
//! Admission gives each a finalizer when it is made; these controllers take it away, and give it to those that were made without.

use crate::pods;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kubewright_core::{ApiError, Options, Resource};

use kubewright_reconcile::{Action, Context, Controller, ObjectKey};
use serde_json::json;
use smol_str::{SmolStr, format_smolstr};
use std::sync::Arc;

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";
const CLASS: &str = "kubernetes.io/vac-protection";
const BY_CLAIM: &str = "controllers: claims of a pod";

/// The controllers of this module.
pub fn controllers() -> Vec<Controller> {
    vec![attribute_classes(), claims(), volumes()]
}

/// Keeps claims while a pod on a node uses them.
pub fn claims() -> Controller {
    Controller::for_kind::<PersistentVolumeClaim>("pvc-protection")
        .filter(|claim| undecided(claim, CLAIM))
        .watches::<Pod>(|pod, cx| {
            let claims = cx.informers().of::<PersistentVolumeClaim>();
            let namespace = pod.namespace().unwrap_or("").to_owned();
            let going = |name: &String| claims.get(&namespace, name).is_some_and(|c| undecided(&*c, CLAIM));
            claims_of(pod).filter(going).map(|name| ObjectKey::new(&namespace, &name)).collect()
        })
        .concurrency(2)
        .with(async move |claim: Arc<PersistentVolumeClaim>, cx: Context| {
            let used = async || claim_is_used(&claim, &cx).await;
            protect(&*claim, CLAIM, used, &cx).await
        })
}

/// Keeps volumes while they are bound.
pub fn volumes() -> Controller {
    Controller::for_kind::<PersistentVolume>("pv-protection")
        .filter(|volume| undecided(volume, VOLUME))
        .concurrency(2)
        .with(async move |volume: Arc<PersistentVolume>, cx: Context| {
            let bound = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
            protect(&*volume, VOLUME, async || Ok(bound), &cx).await
        })
}

/// Keeps classes of volume attributes while a claim or volume is of them.
pub fn attribute_classes() -> Controller {
    Controller::for_kind::<VolumeAttributesClass>("vac-protection")
        .filter(|class| undecided(class, CLASS))
        .watches::<PersistentVolumeClaim>(|claim, cx| going(classes_of(claim), cx))
        .watches::<PersistentVolume>(|volume, cx| going(class_of_volume(volume).into_iter().collect(), cx))
        .with(async move |class: Arc<VolumeAttributesClass>, cx: Context| {
            let used = async || {
                let informers = cx.informers();
                let claimed = informers.of::<PersistentVolumeClaim>().list();
                let volumes = informers.of::<PersistentVolume>().list();
                Ok(claimed.iter().any(|claim| classes_of(claim).iter().any(|name| name == class.name()))
                    || volumes.iter().any(|volume| class_of_volume(volume).as_deref() == Some(class.name())))
            };
            protect(&*class, CLASS, used, &cx).await
        })
}

fn going(names: Vec<String>, cx: &Context) -> Vec<ObjectKey> {
    let classes = cx.informers().of::<VolumeAttributesClass>();
    let deleting = |name: &String| classes.get("", name).is_some_and(|c| undecided(&*c, CLASS));
    names.into_iter().filter(deleting).map(|name| ObjectKey::new("", &name)).collect()
}

fn class_of_volume(volume: &PersistentVolume) -> Option<String> {
    volume.spec.as_ref()?.volume_attributes_class_name.clone()
}

fn classes_of(claim: &PersistentVolumeClaim) -> Vec<String> {
    let status = claim.status.as_ref();
    let wanted = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone());
    let has = status.and_then(|s| s.current_volume_attributes_class_name.clone());
    let target = status.and_then(|s| s.modify_volume_status.as_ref());
    let target = target.and_then(|m| m.target_volume_attributes_class_name.clone());
    [wanted, has, target].into_iter().flatten().collect()
}

fn holds<K: Resource>(object: &K, finalizer: &str) -> bool {
    object.metadata().finalizers.iter().flatten().any(|f| f == finalizer)
}

/// Whether there is something to do: a finalizer to take, or one to give.
fn undecided<K: Resource>(object: &K, finalizer: &str) -> bool {
    object.metadata().deletion_timestamp.is_some() == holds(object, finalizer)
}

async fn protect<K: Resource>(
    object: &K,
    finalizer: &str,
    used: impl AsyncFnOnce() -> Result<bool, ApiError>,
    cx: &Context,
) -> Result<Action, ApiError> {
    let deleting = object.metadata().deletion_timestamp.is_some();
    if !undecided(object, finalizer) || (deleting && used().await?) {
        return Ok(Action::Done);
    }
    let mut finalizers = object.metadata().finalizers.clone().unwrap_or_default();
    match deleting {
        true => finalizers.retain(|f| f != finalizer),
        false => finalizers.push(finalizer.to_owned()),
    }
    let version = &object.metadata().resource_version;
    let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
    match cx.merge(object, patch).await {
        Err(e) if e.is_not_found() => Ok(Action::Done),
        other => other.map(|_| Action::Done),
    }
}

/// The claims that a pod's volumes name, and those made for its ephemeral volumes.
fn claims_of(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let name = pod.name().to_owned();
    let gone = pods::is_terminating(pod) && pod.metadata.deletion_grace_period_seconds == Some(0);
    volumes.filter_map(move |volume: &Volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) if !gone => Some(format!("{name}-{}", volume.name)),
        _ => None,
    })
}

/// A pod counts once it has a node: no node starts a pod whose claim is being deleted.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    !pods::node_name(pod).is_empty() && claims_of(pod).any(|name| name == claim.name())
}

async fn claim_is_used(claim: &PersistentVolumeClaim, cx: &Context) -> Result<bool, ApiError> {
    let namespace = claim.namespace().unwrap_or("");
    let informer = cx.informers().of::<Pod>();
    informer.add_index(BY_CLAIM, |pod: &Pod| {
        let namespace = pod.namespace().unwrap_or("");
        claims_of(pod).map(|name| format_smolstr!("{namespace}/{name}")).collect::<Vec<SmolStr>>()
    });
    let known = informer.by_index(BY_CLAIM, &format!("{namespace}/{}", claim.name()));
    if known.iter().any(|pod| uses(pod, claim)) {
        return Ok(true);
    }
    // A pod that the informer does not show yet would lose its data: the server knows.
    let all = cx.api::<Pod>(namespace).list(Options::default()).await?;
    Ok(all.items.iter().any(|pod| uses(pod, claim)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubewright_reconcile::client::{Api, DeleteOptions};
    use kubewright_reconcile::testing::{FakeApi, converges};
    use serde_json::Value;

    fn typed<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).expect("an object")
    }

    #[tokio::test]
    async fn what_is_used_stays_and_what_is_not_goes() {
        let server = FakeApi::new();
        let claims_api = Api::<PersistentVolumeClaim>::namespaced(server.client(), "a");
        let pods_api = Api::<Pod>::namespaced(server.client(), "a");
        let volumes_api = Api::<PersistentVolume>::all(server.client());
        for name in ["used", "free", "plain"] {
            let finalizers = if name == "plain" { json!([]) } else { json!([CLAIM]) };
            let claim = json!({"metadata": {"name": name, "finalizers": finalizers}, "spec": {}});
            claims_api.create(&typed(claim)).await.expect("created");
        }
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "used"}}]}});
        pods_api.create(&typed(pod)).await.expect("created");
        for (name, phase) in [("bound", "Bound"), ("loose", "Released")] {
            let volume = json!({"metadata": {"name": name, "finalizers": [VOLUME]}, "spec": {}, "status": {"phase": phase}});
            volumes_api.create(&typed(volume)).await.expect("created");
            volumes_api.delete(name, &DeleteOptions::default()).await.expect("deleted");
        }
        for name in ["used", "free"] {
            claims_api.delete(name, &DeleteOptions::default()).await.expect("deleted");
        }
        let count = |kind| server.count(&kind);
        let done =
            || (count(PersistentVolumeClaim::resource()), count(PersistentVolume::resource())) == (2, 1);
        converges(&server, [claims(), volumes(), attribute_classes()], done).await.expect("convergence");
        let plain = claims_api.get("plain").await.expect("the claim");
        assert!(holds(&*plain, CLAIM) && claims_api.get("used").await.is_ok());
        pods_api
            .delete("p", &DeleteOptions { grace_period_seconds: Some(0), ..Default::default() })
            .await
            .expect("deleted");
        converges(&server, [claims()], || count(PersistentVolumeClaim::resource()) == 1)
            .await
            .expect("convergence");
    }
}
