//! PodPreset (`settings.k8s.io/v1alpha1`): variables and volumes that the pods of a selection get.

use crate::admission::json::{list, sub, text};
use crate::admission::{Admission, AdmissionRequest};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kubewright_core::schemars::JsonSchema;
use kubewright_core::{ApiError, GroupVersionResource, Resource, Selector, meta};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const EXCLUDE: &str = "podpreset.admission.kubernetes.io/exclude";
const APPLIED: &str = "podpreset.admission.kubernetes.io/podpreset-";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What pods of a selection get when they are made.
#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema, Resource)]
#[resource(
    group = "settings.k8s.io",
    version = "v1alpha1",
    plural = "podpresets",
    namespaced,
    crate = "kubewright_core"
)]
#[schemars(crate = "kubewright_core::schemars")]
pub struct PodPreset {
    /// Name, labels and so on.
    pub metadata: ObjectMeta,
    /// Which pods, and what.
    #[serde(default)]
    pub spec: PodPresetSpec,
}

/// The spec of a [`PodPreset`].
#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(crate = "kubewright_core::schemars")]
pub struct PodPresetSpec {
    /// Which pods; all of the namespace where it is empty.
    #[serde(default)]
    pub selector: LabelSelector,
    /// Variables for every container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<EnvVar>>,
    /// Sources of variables for every container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_from: Option<Vec<EnvFromSource>>,
    /// Volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<Volume>>,
    /// Mounts for every container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_mounts: Option<Vec<VolumeMount>>,
}

/// Upstream's former plugin `PodPreset`. Presets that contradict a pod or each other change nothing, and the client is warned.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodPresetAdmission;

impl Admission for PodPresetAdmission {
    fn name(&self) -> &'static str {
        "PodPreset"
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        request.creates_pod() && request.reader.has_any(&presets(), request.namespace)
    }

    fn validates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let done = object.filter(|pod| pod["spec"].is_object()).map_or(Ok(()), |pod| preset(request, pod));
        Box::pin(std::future::ready(done))
    }
}

fn presets() -> GroupVersionResource {
    GroupVersionResource::new("settings.k8s.io", "v1alpha1", "podpresets")
}

fn preset(request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let annotation = |key: &str| meta::annotations(pod).and_then(|a| a.get(key)).and_then(Value::as_str);
    if annotation(MIRROR).is_some() || annotation(EXCLUDE) == Some("true") {
        return Ok(());
    }
    let mut matching = Vec::new();
    for object in request.reader.list(&presets(), request.namespace)? {
        let value = object.value()?;
        let selector = match value.pointer("/spec/selector") {
            None | Some(Value::Null) => Selector::everything(),
            selector => Selector::from_value(selector)?,
        };
        if selector.matches(&meta::labels(pod)) {
            matching.push(value);
        }
    }
    if matching.is_empty() {
        return Ok(());
    }
    let mut changed = pod.clone();
    for preset in &matching {
        if let Err(why) = apply(preset, &mut changed) {
            let names: Vec<&str> = matching.iter().map(meta::name).collect();
            request
                .notes
                .warn(format!("conflict occurred while applying podpresets: {}: {why}", names.join(",")));
            return Ok(());
        }
    }
    if let Some(metadata) = meta::metadata_mut(&mut changed) {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        for preset in &matching {
            annotations[format!("{APPLIED}{}", meta::name(preset))] = json!(meta::resource_version(preset));
        }
    }
    *pod = changed;
    Ok(())
}

fn apply(preset: &Value, pod: &mut Value) -> Result<(), String> {
    let (name, spec) = (meta::name(preset), sub(preset, "spec"));
    merge(&mut pod["spec"], "volumes", list(spec, "volumes"), &["name"], name)?;
    for kind in ["initContainers", "containers"] {
        let all = pod["spec"].get_mut(kind).and_then(Value::as_array_mut);
        for container in all.into_iter().flatten().filter(|c| c.is_object()) {
            merge(container, "env", list(spec, "env"), &["name"], name)?;
            merge(container, "volumeMounts", list(spec, "volumeMounts"), &["name", "mountPath"], name)?;
            for source in list(spec, "envFrom") {
                super::super::json::push(container, "envFrom", source.clone());
            }
        }
    }
    Ok(())
}

/// Adds what is missing; an item that is there under one of the keys must be the same.
fn merge(owner: &mut Value, field: &str, more: &[Value], keys: &[&str], preset: &str) -> Result<(), String> {
    for item in more {
        let taken = |has: &&Value| keys.iter().any(|key| text(has, key) == text(item, key));
        match list(owner, field).iter().find(taken) {
            None => super::super::json::push(owner, field, item.clone()),
            Some(has) if has == item => {}
            Some(has) => {
                let name = text(has, keys[0]);
                return Err(format!("merging {field} for {preset} has a conflict on {name}"));
            }
        }
    }
    Ok(())
}
