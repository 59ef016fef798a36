//! PersistentVolume: storage that outlives pods.

use crate::api::BuiltinOptions;
use crate::api::kit::checks::one_of;
use crate::api::kit::columns::{access_modes, age_column, or};
use crate::api::kit::meta::validate_name;
use crate::api::kit::names::NameRule;
use crate::api::kit::quantities::{MALFORMED, nanos};
use crate::api::kit::{
    ErrorSink, Path, at, carry, column, computed, count, default_text, describe, ensure, entries, get, list,
    name_column, same, set, sub, text,
};
use crate::resource::{PrinterColumn, Scope, Strategy, WriteContext};
use crate::{ErrorList, KindDescriptor};
use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) const ACCESS_MODES: [&str; 4] =
    ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];
const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
pub(crate) const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// The annotation that named the class before there was a field.
pub(crate) const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The volume sources of a PersistentVolume.
const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// The descriptor of PersistentVolume.
pub fn descriptor(_: &BuiltinOptions) -> KindDescriptor {
    KindDescriptor {
        short_names: crate::api::kit::names(&["pv"]),
        status: true,
        strategy: Arc::new(PersistentVolumeRules),
        columns: columns(),
        ..describe::<PersistentVolume>(Scope::Cluster)
    }
}

/// The phase to show: an object being deleted is terminating.
pub(crate) fn phase(object: &Value) -> &str {
    if get(sub(object, "metadata"), "deletionTimestamp").is_some() {
        "Terminating"
    } else {
        text(sub(object, "status"), "phase")
    }
}

/// The storage class, by the old annotation or the field.
pub(crate) fn class(object: &Value) -> &str {
    match at(object, &["metadata", "annotations", BETA_CLASS]).as_str() {
        Some(class) => class,
        None => text(sub(object, "spec"), "storageClassName"),
    }
}

/// The attributes class, which has a placeholder of its own.
pub(crate) fn attributes_class(object: &Value) -> &str {
    or(text(sub(object, "spec"), "volumeAttributesClassName"), "<unset>")
}

fn columns() -> Vec<PrinterColumn> {
    vec![
        name_column(),
        column("Capacity", "string", "How much the volume holds.", |o, _| {
            at(o, &["spec", "capacity", "storage"]).as_str().unwrap_or("0").into()
        }),
        column("Access Modes", "string", "How the volume may be mounted.", |o, _| {
            access_modes(sub(o, "spec")).into()
        }),
        column("Reclaim Policy", "string", "What happens after its claim goes.", |o, _| {
            text(sub(o, "spec"), "persistentVolumeReclaimPolicy").into()
        }),
        column("Status", "string", "The phase of the volume.", |o, _| phase(o).into()),
        column("Claim", "string", "The claim that has the volume.", |o, _| claim(o).into()),
        column("StorageClass", "string", "The volume's class.", |o, _| class(o).into()),
        column("VolumeAttributesClass", "string", "The volume's class of attributes.", |o, _| {
            attributes_class(o).into()
        }),
        column("Reason", "string", "Why the volume is in its phase.", |o, _| {
            text(sub(o, "status"), "reason").into()
        }),
        age_column(),
        computed("VolumeMode", "string", "Whether it holds files or is a device.", 1, |o, _| {
            or(text(sub(o, "spec"), "volumeMode"), "<unset>").into()
        }),
    ]
}

fn claim(volume: &Value) -> String {
    match get(sub(volume, "spec"), "claimRef") {
        Some(claim) => format!("{}/{}", text(claim, "namespace"), text(claim, "name")),
        None => String::new(),
    }
}

struct PersistentVolumeRules;

impl Strategy for PersistentVolumeRules {
    fn default(&self, object: &mut Value) {
        if let Some(status) = ensure(object, "status") {
            default_text(status, "phase", "Pending");
        }
        if let Some(spec) = object.get_mut("spec") {
            default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
            default_text(spec, "volumeMode", "Filesystem");
            if let Some(path) = crate::api::kit::object_mut(spec, "hostPath") {
                crate::api::kit::default_to(path, "type", "");
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Value, cx: WriteContext<'_>) {
        let now = cx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        set(object, "status", json!({"phase": "Pending", "lastPhaseTransitionTime": now}));
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, cx: WriteContext<'_>) {
        if cx.subresource == Some("status") {
            carry(object, old, "spec");
            if text(sub(object, "status"), "phase") != text(sub(old, "status"), "phase")
                && let Some(status) = ensure(object, "status")
            {
                set(status, "lastPhaseTransitionTime", cx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            }
        } else {
            carry(object, old, "status");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_name(object, NameRule::Subdomain, &mut errors);
        validate_spec(sub(object, "spec"), &Path::Root.child("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, cx: WriteContext<'_>) -> ErrorList {
        if cx.subresource == Some("status") {
            return ErrorList::new();
        }
        let mut errors = self.validate(object);
        let (spec, old_spec) = (sub(object, "spec"), sub(old, "spec"));
        let path = Path::Root.child("spec");
        if SOURCES.iter().any(|source| !same(sub(spec, source), sub(old_spec, source))) {
            errors.forbidden(
                &path.child("persistentvolumesource"),
                "spec.persistentvolumesource is immutable after creation",
            );
        }
        crate::api::kit::meta::immutable(
            sub(spec, "volumeMode"),
            sub(old_spec, "volumeMode"),
            &path.child("volumeMode"),
            &mut errors,
        );
        errors
    }
}

fn validate_spec(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_access_modes(spec, path, errors);
    let capacity = path.child("capacity");
    if count(spec, "capacity") == 0 {
        errors.required(&capacity, "");
    } else if count(spec, "capacity") > 1 || get(sub(spec, "capacity"), "storage").is_none() {
        errors.not_supported(&capacity, sub(spec, "capacity").clone(), &["storage"]);
    }
    for (name, amount) in entries(spec, "capacity") {
        match nanos(amount) {
            None => errors.invalid(&capacity.key(name), amount.clone(), MALFORMED),
            Some(n) if n <= 0 => {
                errors.invalid(&capacity.key(name), amount.clone(), "must be greater than zero")
            }
            Some(_) => {}
        }
    }
    one_of(spec, "persistentVolumeReclaimPolicy", &RECLAIM_POLICIES, path, errors);
    one_of(spec, "volumeMode", &VOLUME_MODES, path, errors);
    let mut sources = SOURCES.iter().filter(|source| get(spec, source).is_some());
    if sources.next().is_none() {
        errors.required(path, "must specify a volume type");
    }
    for extra in sources {
        errors.forbidden(&path.child(extra), "may not specify more than 1 volume type");
    }
    if let Some(host_path) = get(spec, "hostPath")
        && text(host_path, "path").is_empty()
    {
        errors.required(&path.child("hostPath").child("path"), "");
    }
    if let Some(local) = get(spec, "local") {
        if text(local, "path").is_empty() {
            errors.required(&path.child("local").child("path"), "");
        }
        if get(spec, "nodeAffinity").is_none() {
            errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if let Some(csi) = get(spec, "csi") {
        for field in ["driver", "volumeHandle"] {
            if text(csi, field).is_empty() {
                errors.required(&path.child("csi").child(field), "");
            }
        }
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        for problem in NameRule::Subdomain.problems(class) {
            errors.invalid(&path.child("storageClassName"), class, &problem);
        }
    }
}

/// Validates the access modes of a volume or claim.
pub(crate) fn validate_access_modes(spec: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let modes = list(spec, "accessModes");
    let at = path.child("accessModes");
    if modes.is_empty() {
        errors.required(&at, "at least 1 access mode is required");
    }
    for mode in modes {
        if !ACCESS_MODES.iter().any(|known| mode == known) {
            errors.not_supported(&at, mode.clone(), &ACCESS_MODES);
        }
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errors.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> Value {
        json!({"metadata": {"name": "v"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/a"}}})
    }

    #[test]
    fn volumes_are_checked() {
        let check = |change: fn(&mut Value), wanted: &[&str]| {
            let mut volume = volume();
            change(&mut volume["spec"]);
            let texts: Vec<String> =
                PersistentVolumeRules.validate(&volume).iter().map(ToString::to_string).collect();
            assert_eq!(texts, wanted);
        };
        check(|_| {}, &[]);
        check(|s| s["capacity"] = json!({}), &["spec.capacity: Required value"]);
        check(
            |s| s["capacity"]["storage"] = "0".into(),
            &["spec.capacity[storage]: Invalid value: \"0\": must be greater than zero"],
        );
        check(
            |s| s["nfs"] = json!({"server": "x"}),
            &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        );
        check(
            |s| s["accessModes"] = json!([]),
            &["spec.accessModes: Required value: at least 1 access mode is required"],
        );
    }

    #[test]
    fn the_source_stays() {
        let cx = WriteContext::new(None, jiff::Timestamp::UNIX_EPOCH);
        let mut new = volume();
        PersistentVolumeRules.default(&mut new);
        let old = new.clone();
        new["spec"]["hostPath"]["path"] = "/b".into();
        assert_eq!(PersistentVolumeRules.validate_update(&new, &old, cx).len(), 1);
        assert_eq!(PersistentVolumeRules.validate_update(&old, &old, cx), vec![]);
    }
}
