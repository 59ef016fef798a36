//! Which volume serves a claim.

use super::objects::{claim_class, claim_ref, is_for, phase_of, volume_class};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kubewright_core::Resource;
use kubewright_core::quantity::Quantity;
use kubewright_core::selector::Selector;
use std::sync::Arc;

/// The size that a quantity text says; unreadable ones were refused by the server.
fn size(of: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> Option<Quantity> {
    of.and_then(|q| Quantity::parse(&q.0).ok())
}

fn capacity(volume: &PersistentVolume) -> Option<Quantity> {
    size(volume.spec.as_ref()?.capacity.as_ref()?.get("storage"))
}

fn mode(text: Option<&str>) -> &str {
    text.filter(|m| !m.is_empty()).unwrap_or("Filesystem")
}

/// What a claim asks for, read once for many volumes.
pub(super) struct Wish<'a> {
    claim: &'a PersistentVolumeClaim,
    class: &'a str,
    size: Option<Quantity>,
    mode: &'a str,
    access: &'a [String],
    selector: Option<Selector>,
    attributes: Option<&'a str>,
}

impl<'a> Wish<'a> {
    /// Reads a claim; a selector that can't be read matches nothing.
    pub(super) fn of(claim: &'a PersistentVolumeClaim) -> Self {
        let spec = claim.spec.as_ref();
        let requests = spec.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
        let selector = spec.and_then(|s| s.selector.as_ref());
        let read = |s| Selector::from_label_selector(Some(s)).unwrap_or_else(|_| Selector::nothing());
        Wish {
            claim,
            class: claim_class(claim),
            size: size(requests.and_then(|r| r.get("storage"))),
            mode: mode(spec.and_then(|s| s.volume_mode.as_deref())),
            access: spec.and_then(|s| s.access_modes.as_deref()).unwrap_or_default(),
            selector: selector.map(read),
            attributes: spec.and_then(|s| s.volume_attributes_class_name.as_deref()),
        }
    }

    /// What keeps a volume that the claim names from being bound, in upstream's words.
    pub(super) fn misfit(&self, volume: &PersistentVolume) -> Option<&'static str> {
        let spec = volume.spec.as_ref();
        if capacity(volume) < self.size {
            Some("requested PV is too small")
        } else if volume_class(volume) != self.class {
            Some("storageClassName does not match")
        } else if self.is_other_mode(volume) {
            Some("incompatible volumeMode")
        } else if !self.access_of(volume) {
            Some("incompatible accessMode")
        } else if spec.and_then(|s| s.volume_attributes_class_name.as_deref()) != self.attributes {
            Some("volumeAttributesClassName does not match")
        } else {
            None
        }
    }

    /// Whether one is a device and the other holds files.
    pub(super) fn is_other_mode(&self, volume: &PersistentVolume) -> bool {
        mode(volume.spec.as_ref().and_then(|s| s.volume_mode.as_deref())) != self.mode
    }

    fn access_of(&self, volume: &PersistentVolume) -> bool {
        let has = volume.spec.as_ref().and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
        self.access.iter().all(|m| has.contains(m))
    }

    /// Whether a volume that was set aside for the claim can be bound to it.
    fn takes_reserved(&self, volume: &PersistentVolume) -> bool {
        is_for(volume, self.claim)
            && volume.metadata.deletion_timestamp.is_none()
            && capacity(volume) >= self.size
            && !self.is_other_mode(volume)
            && self.access_of(volume)
    }

    /// Whether a volume that nobody claims serves the claim.
    pub(super) fn takes_free(&self, volume: &PersistentVolume) -> bool {
        claim_ref(volume).is_none()
            && volume.metadata.deletion_timestamp.is_none()
            && phase_of(volume) == "Available"
            && self.misfit(volume).is_none()
            && self
                .selector
                .as_ref()
                .is_none_or(|s| s.matches(volume.metadata.labels.as_ref().unwrap_or(&Default::default())))
    }

    /// The best volume: one set aside for the claim, otherwise the one with the fewest needless access modes, among those the smallest.
    pub(super) fn best(
        &self,
        reserved: &[Arc<PersistentVolume>],
        free: &[Arc<PersistentVolume>],
    ) -> Option<Arc<PersistentVolume>> {
        let modes =
            |v: &PersistentVolume| v.spec.as_ref().and_then(|s| s.access_modes.as_ref()).map_or(0, Vec::len);
        let own = reserved.iter().filter(|v| self.takes_reserved(v)).min_by_key(|v| v.name().to_owned());
        let served = || {
            let all = free.iter().filter(|v| self.takes_free(v));
            all.min_by(|a, b| {
                let rank = |v: &PersistentVolume| (modes(v), capacity(v));
                rank(a)
                    .partial_cmp(&rank(b))
                    .unwrap_or(std::cmp::Ordering::Equal)
                    .then_with(|| a.name().cmp(b.name()))
            })
        };
        own.or_else(served).cloned()
    }
}
