//! The classes that claims and ingresses get where they name none: those marked as the default.

use super::json::{sub, text};
use super::{Admission, AdmissionRequest, Operation};
use futures::future::BoxFuture;
use kubewright_core::{ApiError, GroupVersionResource, meta};
use serde_json::{Value, json};

const BETA_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Upstream's plugin of this name.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultStorageClass;

/// Upstream's plugin of this name.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultIngressClass;

fn creates(request: &AdmissionRequest<'_>, group: &str, resource: &str) -> bool {
    request.operation == Operation::Create
        && request.subresource.is_none()
        && request.resource.group == group
        && request.resource.resource == resource
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    meta::annotations(object)?.get(key)?.as_str()
}

/// The class that one of these annotations marks; of several the newest one, of those the first by name.
fn marked(
    request: &AdmissionRequest<'_>,
    classes: &GroupVersionResource,
    keys: &[&str],
) -> Result<Option<String>, ApiError> {
    let all = match request.reader.list(classes, "") {
        Err(e) if e.is_not_found() => return Ok(None),
        other => other?,
    };
    let mut best: Option<(String, String)> = None;
    for class in all {
        let class = class.parsed()?;
        if !keys.iter().any(|key| annotation(&class, key) == Some("true")) {
            continue;
        }
        let made = text(sub(&class, "metadata"), "creationTimestamp").to_owned();
        // Names come in order: of classes of one second the first stays.
        if best.as_ref().is_none_or(|(newest, _)| made > *newest) {
            best = Some((made, meta::name(&class).to_owned()));
        }
    }
    Ok(best.map(|(_, name)| name))
}

impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        creates(request, "", "persistentvolumeclaims")
    }

    fn validates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let give = |claim: &mut Value| {
            // An empty name asks for no class.
            let named = !sub(sub(claim, "spec"), "storageClassName").is_null();
            if named || annotation(claim, BETA_STORAGE_CLASS).is_some() || !sub(claim, "spec").is_object() {
                return Ok(());
            }
            let classes = GroupVersionResource::new("storage.k8s.io", "v1", "storageclasses");
            let keys = [
                "storageclass.kubernetes.io/is-default-class",
                "storageclass.beta.kubernetes.io/is-default-class",
            ];
            if let Some(name) = marked(request, &classes, &keys)? {
                claim["spec"]["storageClassName"] = json!(name);
            }
            Ok(())
        };
        Box::pin(std::future::ready(object.map_or(Ok(()), give)))
    }
}

impl Admission for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        creates(request, "networking.k8s.io", "ingresses")
    }

    fn validates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let give = |ingress: &mut Value| {
            let named = !sub(sub(ingress, "spec"), "ingressClassName").is_null();
            if named || annotation(ingress, "kubernetes.io/ingress.class").is_some() {
                return Ok(());
            }
            let classes = GroupVersionResource::new("networking.k8s.io", "v1", "ingressclasses");
            let found = marked(request, &classes, &["ingressclass.kubernetes.io/is-default-class"])?;
            if let Some(name) = found.filter(|_| sub(ingress, "spec").is_object()) {
                ingress["spec"]["ingressClassName"] = json!(name);
            }
            Ok(())
        };
        Box::pin(std::future::ready(object.map_or(Ok(()), give)))
    }
}
