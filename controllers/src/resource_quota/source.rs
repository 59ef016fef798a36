//! The objects that quotas count, followed only while some quota counts them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::resource::v1::ResourceClaim;
use kubewright_core::quota::{Amounts, Counter, ScopeTerm, takes_room};
use kubewright_core::{ApiError, GroupVersionResource};
use kubewright_reconcile::{Context, Informer, PartialObject};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// The objects of one resource.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Pods(Informer<Pod>),
    Services(Informer<Service>),
    VolumeClaims(Informer<PersistentVolumeClaim>),
    DeviceClaims(Informer<ResourceClaim>),
    /// Counted by number: their metadata is enough.
    Objects(Informer<PartialObject>),
}

impl Source {
    pub(super) fn open(cx: &Context, counter: &Counter, resource: GroupVersionResource) -> Source {
        let informers = cx.informers();
        match counter {
            Counter::Pods => Source::Pods(informers.of()),
            Counter::Services => Source::Services(informers.of()),
            Counter::VolumeClaims => Source::VolumeClaims(informers.of()),
            Counter::DeviceClaims => Source::DeviceClaims(informers.of()),
            Counter::Objects { .. } => Source::Objects(informers.metadata(resource)),
        }
    }

    pub(super) async fn synced(&self) -> bool {
        match self {
            Source::Pods(i) => i.synced().await,
            Source::Services(i) => i.synced().await,
            Source::VolumeClaims(i) => i.synced().await,
            Source::DeviceClaims(i) => i.synced().await,
            Source::Objects(i) => i.synced().await,
        }
    }

    /// What the objects of a namespace use together, of those in the scopes.
    pub(super) fn usage(
        &self,
        counter: &Counter,
        namespace: &str,
        scopes: &[ScopeTerm],
        now: Timestamp,
    ) -> Result<Amounts, ApiError> {
        match self {
            Source::Pods(i) => sum(&i.list_in(namespace), counter, scopes, now),
            Source::Services(i) => sum(&i.list_in(namespace), counter, scopes, now),
            Source::VolumeClaims(i) => sum(&i.list_in(namespace), counter, scopes, now),
            Source::DeviceClaims(i) => sum(&i.list_in(namespace), counter, scopes, now),
            Source::Objects(i) => {
                let mut total = Amounts::default();
                if counter.in_scopes(scopes, &Value::Null) {
                    let number = i64::try_from(i.list_in(namespace).len()).unwrap_or(i64::MAX);
                    for (name, _) in counter.usage(&Value::Null, now).0 {
                        total.count(name, number);
                    }
                }
                Ok(total)
            }
        }
    }
}

fn sum<K: Serialize>(
    objects: &[Arc<K>],
    counter: &Counter,
    scopes: &[ScopeTerm],
    now: Timestamp,
) -> Result<Amounts, ApiError> {
    let mut total = Amounts::default();
    for object in objects {
        let value = serde_json::to_value(object).map_err(ApiError::internal)?;
        if counter.in_scopes(scopes, &value) {
            total.add(&counter.usage(&value, now));
        }
    }
    Ok(total)
}

/// Whether a change of a pod may change what is used: an end does, and another size.
pub(super) fn pod_counts(old: &Pod, new: &Pod, now: Timestamp) -> bool {
    let value = |pod: &Pod| serde_json::to_value(pod).unwrap_or_default();
    let resources = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        let containers = spec.map(|s| s.containers.iter().map(|c| c.resources.clone()).collect::<Vec<_>>());
        (containers, pod.status.as_ref().and_then(|s| s.phase.clone()))
    };
    if resources(old) != resources(new) {
        return true;
    }
    new.metadata.deletion_timestamp.is_some() && takes_room(&value(old), now) && !takes_room(&value(new), now)
}
