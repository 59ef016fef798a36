//! Which ReplicaSet is the Deployment's new one, and the numbers of its revisions.

use super::plan;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kubewright_core::{ApiError, Resource};
use kubewright_reconcile::owner;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const HASH_LABEL: &str = "pod-template-hash";
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(super) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its ReplicaSets do not get.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
/// Upstream's bound of the revision history annotation.
const HISTORY_BYTES_MAX: usize = 2000;

/// The revision that a ReplicaSet carries; 0 without one.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    annotation(set, REVISION).unwrap_or(0)
}

/// A number in an annotation of a ReplicaSet.
pub(super) fn annotation<N: std::str::FromStr>(set: &ReplicaSet, name: &str) -> Option<N> {
    set.metadata.annotations.as_ref()?.get(name)?.parse().ok()
}

/// The ReplicaSet with the Deployment's template, the oldest of several.
pub(super) fn find_new(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let template = &deployment.spec.as_ref()?.template;
    plan::by_creation(sets).into_iter().find(|set| has_template(set, template))
}

/// Whether a ReplicaSet has this template, the hash label aside.
pub(super) fn has_template(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let Some(own) = set.spec.as_ref().and_then(|s| s.template.as_ref()) else {
        return false;
    };
    own.spec == template.spec && bare(own) == bare(template)
}

/// Labels (without the hash) and annotations: all of a template's metadata that counts.
fn bare(template: &PodTemplateSpec) -> (BTreeMap<&str, &str>, BTreeMap<&str, &str>) {
    let meta = template.metadata.as_ref();
    let labels = meta.and_then(|m| m.labels.as_ref()).into_iter().flatten();
    let annotations = meta.and_then(|m| m.annotations.as_ref()).into_iter().flatten();
    (
        labels.filter(|(k, _)| *k != HASH_LABEL).map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        annotations.map(|(k, v)| (k.as_str(), v.as_str())).collect(),
    )
}

/// The hash that names a template's ReplicaSet: FNV-1a over its JSON and the collision count, in characters that make no word.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> Result<String, ApiError> {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    // A JSON value orders its keys, so that equal templates have equal bytes.
    let value = serde_json::to_value(template).map_err(ApiError::internal)?;
    let mut bytes = serde_json::to_vec(&value).map_err(ApiError::internal)?;
    bytes.extend(collisions.filter(|c| *c > 0).map(i32::to_le_bytes).into_iter().flatten());
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
    Ok(hash
        .to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect())
}

/// The new ReplicaSet of a Deployment, as it is created.
pub(super) fn new_set(
    deployment: &Deployment,
    revision: i64,
    all: &[Arc<ReplicaSet>],
) -> Result<ReplicaSet, ApiError> {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    let hash = template_hash(&spec.template, collisions)?;
    let mut template = spec.template;
    let meta = template.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = meta.labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut set = ReplicaSet::default();
    set.metadata.name = Some(format!("{}-{hash}", deployment.name()));
    set.metadata.namespace = deployment.metadata.namespace.clone();
    set.metadata.labels = labels;
    set.metadata.owner_references = Some(vec![owner::controller_ref(deployment)]);
    let mut annotations = copied(deployment);
    annotations.insert(REVISION.to_owned(), revision.to_string());
    annotations.extend(replica_annotations(deployment));
    set.metadata.annotations = Some(annotations);
    set.spec = Some(ReplicaSetSpec {
        replicas: Some(plan::new_set_replicas(deployment, all, 0)),
        min_ready_seconds: spec.min_ready_seconds,
        selector,
        template: Some(template),
    });
    Ok(set)
}

/// The annotations that a Deployment hands down.
fn copied(deployment: &Deployment) -> BTreeMap<String, String> {
    let all = deployment.metadata.annotations.iter().flatten();
    all.filter(|(k, _)| !NOT_COPIED.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// What a ReplicaSet remembers of the Deployment's size.
pub(super) fn replica_annotations(deployment: &Deployment) -> [(String, String); 2] {
    let want = plan::wanted(deployment);
    let (surge, _) = plan::fenceposts(deployment);
    [(DESIRED.to_owned(), want.to_string()), (MAX.to_owned(), (want + surge).to_string())]
}

/// The annotations that the new ReplicaSet shall have at this revision; `None` where it has them.
pub(super) fn renewed_annotations(
    deployment: &Deployment,
    set: &ReplicaSet,
    revision: i64,
) -> Option<BTreeMap<String, String>> {
    let present = set.metadata.annotations.clone().unwrap_or_default();
    let mut all = present.clone();
    all.extend(copied(deployment));
    let own = self::revision(set);
    if own < revision {
        all.insert(REVISION.to_owned(), revision.to_string());
        if own > 0 {
            let history = present.get(REVISION_HISTORY).cloned().unwrap_or_default();
            all.insert(REVISION_HISTORY.to_owned(), lengthened(&history, own));
        }
    }
    (all != present).then_some(all)
}

/// The history with one more revision; the oldest go where it grows too long.
fn lengthened(history: &str, revision: i64) -> String {
    let mut parts: Vec<String> = history.split(',').filter(|p| !p.is_empty()).map(str::to_owned).collect();
    parts.push(revision.to_string());
    while parts.iter().map(|p| p.len() + 1).sum::<usize>() > HISTORY_BYTES_MAX {
        parts.remove(0);
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_depends_on_template_and_collisions_only() {
        let template = |image: &str| -> PodTemplateSpec {
            serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "image": image}]}})).unwrap()
        };
        let hash = |image: &str, c| template_hash(&template(image), c).unwrap();
        assert_eq!(hash("a", None), hash("a", Some(0)));
        assert_ne!(hash("a", None), hash("a", Some(1)));
        assert_ne!(hash("a", None), hash("b", None));
        assert!(hash("a", None).bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b)));
    }

    #[test]
    fn a_rollback_lengthens_the_history() {
        let check = |annotations: serde_json::Value, revision: i64, want: Option<(&str, &str)>| {
            let set: ReplicaSet =
                serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap();
            let got = renewed_annotations(&Deployment::default(), &set, revision);
            let pair =
                got.as_ref().map(|a| (a[REVISION].as_str(), a.get(REVISION_HISTORY).map_or("", |h| h)));
            assert_eq!(pair, want);
        };
        check(json!({}), 1, Some(("1", "")));
        check(json!({REVISION: "1"}), 1, None);
        check(json!({REVISION: "1"}), 3, Some(("3", "1")));
        check(json!({REVISION: "3", REVISION_HISTORY: "1"}), 5, Some(("5", "1,3")));
        check(json!({REVISION: "9"}), 5, None);
    }
}
