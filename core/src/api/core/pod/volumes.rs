//! Upstream's validation of volumes and of their mounts.

use super::env::{validate_field_ref, validate_resource_ref};
use crate::ErrorList;
use crate::api::core::persistent_volume_claim::validate_claim_spec;
use crate::api::kit::names;
use crate::api::kit::quantities::{MALFORMED, nanos};
use crate::api::kit::{ErrorSink, Path, at, count, get, int, list, sub, text};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// The volumes of a pod by name, to check mounts against.
pub(super) struct Volumes<'a> {
    by_name: BTreeMap<&'a str, &'a Value>,
}

/// Validates the volumes of a pod spec.
pub(super) fn validate<'a>(
    spec: &'a Value,
    metadata: &Value,
    path: &Path<'_>,
    errors: &mut ErrorList,
) -> Volumes<'a> {
    let mut by_name = BTreeMap::new();
    let at_volumes = path.child("volumes");
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let item = at_volumes.index(i);
        let name = text(volume, "name");
        let problems = if name.is_empty() { Vec::new() } else { names::label(name) };
        if name.is_empty() {
            errors.required(&item.child("name"), "");
        }
        for problem in &problems {
            errors.invalid(&item.child("name"), name, problem);
        }
        if by_name.contains_key(name) {
            errors.duplicate(&item.child("name"), name);
        }
        validate_source(volume, text(metadata, "name"), &item, errors);
        if !name.is_empty() && problems.is_empty() {
            by_name.insert(name, volume);
        }
    }
    Volumes { by_name }
}

fn validate_source(volume: &Value, pod_name: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let mut seen = false;
    let sources = volume.as_object().into_iter().flatten().filter(|(k, v)| *k != "name" && !v.is_null());
    for (kind, source) in sources {
        let at = path.child(kind);
        if seen {
            errors.forbidden(&at, "may not specify more than 1 volume type");
            continue;
        }
        seen = true;
        validate_kind(kind, source, &at, errors);
        if kind == "ephemeral" {
            validate_ephemeral(source, text(volume, "name"), pod_name, &at, errors);
        }
    }
    if !seen {
        errors.required(path, "must specify a volume type");
    }
}

fn validate_kind(kind: &str, source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    match kind {
        "emptyDir" => validate_empty_dir(source, path, errors),
        "hostPath" => validate_host_path(source, path, errors),
        "secret" => validate_keys(source, "secretName", path, errors),
        "configMap" => validate_keys(source, "name", path, errors),
        "downwardAPI" => {
            validate_mode(source, "defaultMode", path, errors);
            validate_downward(source, path, errors);
        }
        "projected" => validate_projected(source, path, errors),
        "persistentVolumeClaim" => required(source, &["claimName"], path, errors),
        "nfs" => {
            required(source, &["server", "path"], path, errors);
            let mount = text(source, "path");
            if !mount.is_empty() && !mount.starts_with('/') {
                errors.invalid(&path.child("path"), mount, "must be an absolute path");
            }
        }
        "csi" => {
            required(source, &["driver"], path, errors);
            let driver = text(source, "driver");
            for problem in names::subdomain(&driver.to_lowercase()).iter().filter(|_| !driver.is_empty()) {
                errors.invalid(&path.child("driver"), driver, problem);
            }
        }
        "iscsi" => required(source, &["targetPortal", "iqn"], path, errors),
        "gcePersistentDisk" => required(source, &["pdName"], path, errors),
        "awsElasticBlockStore" => required(source, &["volumeID"], path, errors),
        "azureFile" => required(source, &["secretName", "shareName"], path, errors),
        "azureDisk" => required(source, &["diskName", "diskURI"], path, errors),
        "cinder" | "portworxVolume" => required(source, &["volumeID"], path, errors),
        "vsphereVolume" => required(source, &["volumePath"], path, errors),
        "flexVolume" => required(source, &["driver"], path, errors),
        "image" => {
            required(source, &["reference"], path, errors);
            let policy = text(source, "pullPolicy");
            if !matches!(policy, "" | "Always" | "IfNotPresent" | "Never") {
                errors.not_supported(&path.child("pullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
            }
        }
        // The other kinds are long gone from upstream's nodes; their fields are only typed.
        _ => {}
    }
}

fn required(source: &Value, fields: &[&str], path: &Path<'_>, errors: &mut ErrorList) {
    for field in fields {
        if text(source, field).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
}

fn validate_empty_dir(source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(limit) = get(source, "sizeLimit") {
        match nanos(limit) {
            None => errors.invalid(&path.child("sizeLimit"), limit.clone(), MALFORMED),
            Some(n) if n < 0 => errors
                .forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity"),
            Some(_) => {}
        }
    }
}

fn validate_host_path(source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let host = text(source, "path");
    if host.is_empty() {
        errors.required(&path.child("path"), "");
        return;
    }
    if host.split('/').any(|part| part == "..") {
        errors.invalid(&path.child("path"), host, "must not contain '..'");
    }
    let kind = text(source, "type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, &HOST_PATH_TYPES);
    }
}

fn validate_mode(source: &Value, field: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(mode) = int(source, field).filter(|m| !(0..=0o777).contains(m)) {
        errors.invalid(&path.child(field), mode, MODE);
    }
}

fn validate_keys(source: &Value, name_field: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if text(source, name_field).is_empty() {
        errors.required(&path.child(name_field), "");
    }
    validate_mode(source, "defaultMode", path, errors);
    validate_items(source, path, errors);
}

fn validate_items(source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let items = path.child("items");
    for (i, item) in list(source, "items").iter().enumerate() {
        let at = items.index(i);
        if text(item, "key").is_empty() {
            errors.required(&at.child("key"), "");
        }
        validate_inner_path(text(item, "path"), &at.child("path"), errors);
        validate_mode(item, "mode", &at, errors);
    }
}

/// A path inside a volume: relative, and never upwards.
fn validate_inner_path(inner: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if inner.is_empty() {
        errors.required(path, "");
        return;
    }
    validate_descending(inner, path, errors);
    if inner.starts_with("..") && !inner.starts_with("../") {
        errors.invalid(path, inner, "must not start with '..'");
    }
}

fn validate_descending(inner: &str, path: &Path<'_>, errors: &mut ErrorList) {
    if inner.starts_with('/') {
        errors.invalid(path, inner, "must be a relative path");
    }
    if inner.split('/').any(|part| part == "..") {
        errors.invalid(path, inner, "must not contain '..'");
    }
}

fn validate_downward(source: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let items = path.child("items");
    for (i, item) in list(source, "items").iter().enumerate() {
        let at = items.index(i);
        validate_inner_path(text(item, "path"), &at.child("path"), errors);
        match (get(item, "fieldRef"), get(item, "resourceFieldRef")) {
            (Some(field), None) => validate_field_ref(field, &VOLUME_FIELDS, &at.child("fieldRef"), errors),
            (None, Some(resource)) => {
                validate_resource_ref(resource, true, &at.child("resourceFieldRef"), errors)
            }
            (Some(_), Some(_)) => {
                errors.invalid(
                    &at,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
            (None, None) => errors.required(&at, "one of fieldRef and resourceFieldRef is required"),
        }
        validate_mode(item, "mode", &at, errors);
    }
}

fn validate_projected(projected: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    validate_mode(projected, "defaultMode", path, errors);
    let sources = path.child("sources");
    for (i, source) in list(projected, "sources").iter().enumerate() {
        let at = sources.index(i);
        let mut given = source.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null());
        let Some((kind, projection)) = given.next() else { continue };
        let item = at.child(kind);
        match kind.as_str() {
            "secret" | "configMap" => {
                if text(projection, "name").is_empty() {
                    errors.required(&item.child("name"), "");
                }
                validate_items(projection, &item, errors);
            }
            "downwardAPI" => validate_downward(projection, &item, errors),
            "serviceAccountToken" => validate_token(projection, &item, errors),
            // Trust bundles and certificates are checked by their types.
            _ => {}
        }
        for (extra, _) in given {
            errors.forbidden(&at.child(extra), "may not specify more than 1 volume type");
        }
    }
}

fn validate_token(token: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    if let Some(seconds) = int(token, "expirationSeconds") {
        if seconds < 600 {
            errors.invalid(
                &path.child("expirationSeconds"),
                seconds,
                "may not specify a duration less than 10 minutes",
            );
        } else if seconds > 1 << 32 {
            errors.invalid(
                &path.child("expirationSeconds"),
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            );
        }
    }
    validate_inner_path(text(token, "path"), &path.child("path"), errors);
}

fn validate_ephemeral(source: &Value, name: &str, pod: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let template = path.child("volumeClaimTemplate");
    match get(source, "volumeClaimTemplate") {
        None => errors.required(&template, ""),
        Some(claim) => validate_claim_spec(sub(claim, "spec"), &template.child("spec"), errors),
    }
    // The claim gets the pod's and the volume's names together.
    if !pod.is_empty() && !name.is_empty() {
        let claim = format!("{pod}-{name}");
        for problem in names::subdomain(&claim) {
            errors.invalid(path, name, &format!("PVC name \"{claim}\": {problem}"));
        }
    }
}

impl Volumes<'_> {
    /// Validates the mounts of a container against the volumes.
    pub(super) fn validate_mounts(&self, container: &Value, path: &Path<'_>, errors: &mut ErrorList) {
        let mounts = path.child("volumeMounts");
        let mut seen = BTreeSet::new();
        for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
            let item = mounts.index(i);
            let name = text(mount, "name");
            if name.is_empty() {
                errors.required(&item.child("name"), "");
            } else if !self.by_name.contains_key(name) {
                errors.not_found(&item.child("name"), name);
            }
            let place = text(mount, "mountPath");
            if place.is_empty() {
                errors.required(&item.child("mountPath"), "");
            }
            if !seen.insert(place) {
                errors.invalid(&item.child("mountPath"), place, "must be unique");
            }
            validate_sub_paths(mount, &item, errors);
        }
        self.validate_devices(container, &seen, path, errors);
    }

    fn validate_devices(
        &self,
        container: &Value,
        mounts: &BTreeSet<&str>,
        path: &Path<'_>,
        errors: &mut ErrorList,
    ) {
        let devices = path.child("volumeDevices");
        for (i, device) in list(container, "volumeDevices").iter().enumerate() {
            let item = devices.index(i);
            let name = text(device, "name");
            match self.by_name.get(name) {
                _ if name.is_empty() => errors.required(&item.child("name"), ""),
                None => errors.not_found(&item.child("name"), name),
                Some(volume) if count(volume, "persistentVolumeClaim") + count(volume, "ephemeral") == 0 => errors.invalid(
                    &item.child("name"),
                    name,
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                ),
                Some(_) => {}
            }
            let place = text(device, "devicePath");
            if place.is_empty() {
                errors.required(&item.child("devicePath"), "");
            } else {
                validate_descending(place.trim_start_matches('/'), &item.child("devicePath"), errors);
            }
            if mounts.contains(place) {
                errors.invalid(
                    &item.child("devicePath"),
                    place,
                    "must not already exist as a path in volumeMounts",
                );
            }
        }
    }
}

fn validate_sub_paths(mount: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let (inner, expanded) = (text(mount, "subPath"), text(mount, "subPathExpr"));
    if !inner.is_empty() {
        validate_descending(inner, &path.child("subPath"), errors);
    }
    if !expanded.is_empty() {
        if !inner.is_empty() {
            errors.invalid(
                &path.child("subPathExpr"),
                expanded,
                "subPathExpr and subPath are mutually exclusive",
            );
        }
        validate_descending(expanded, &path.child("subPathExpr"), errors);
    }
    let propagation = at(mount, &["mountPropagation"]).as_str();
    if let Some(other) = propagation.filter(|p| !matches!(*p, "Bidirectional" | "HostToContainer" | "None")) {
        let known = ["Bidirectional", "HostToContainer", "None"];
        errors.not_supported(&path.child("mountPropagation"), other, &known);
    }
}
