//! Every image is pulled for every pod, so that nobody uses a private image of another by finding it on a node.

use crate::admission::json::{containers, text};
use crate::admission::{Admission, AdmissionRequest, Operation, forbidden};
use futures::future::BoxFuture;
use kubewright_core::ApiError;
use serde_json::{Value, json};

const KINDS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Upstream's plugin of this name.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysPullImages;

fn concerns(request: &AdmissionRequest<'_>) -> bool {
    matches!(request.operation, Operation::Create | Operation::Update)
        && request.resource.group.is_empty()
        && request.resource.resource == "pods"
        && matches!(request.subresource, None | Some("ephemeralcontainers"))
}

/// Whether an update brings no image that the pod did not have.
fn keeps_images(request: &AdmissionRequest<'_>, pod: &Value) -> bool {
    request.old.is_some_and(|old| {
        let before: Vec<&str> = containers(&old["spec"]).map(|c| text(c, "image")).collect();
        containers(&pod["spec"]).all(|c| before.contains(&text(c, "image")))
    })
}

impl Admission for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        concerns(request)
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        concerns(request)
    }

    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        if let Some(pod) = object.filter(|pod| pod["spec"].is_object() && !keeps_images(request, pod)) {
            for kind in KINDS {
                let all = pod["spec"].get_mut(kind).and_then(Value::as_array_mut);
                for container in all.into_iter().flatten().filter(|c| c.is_object()) {
                    container["imagePullPolicy"] = json!("Always");
                }
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let check = |pod: &Value| {
            let bad = containers(&pod["spec"]).find(|c| text(c, "imagePullPolicy") != "Always");
            match bad.filter(|_| !keeps_images(request, pod)) {
                None => Ok(()),
                Some(container) => {
                    let (name, policy) = (text(container, "name"), text(container, "imagePullPolicy"));
                    let why = format!(
                        "spec.containers[{name}].imagePullPolicy: Unsupported value: {policy:?}: supported values: \"Always\""
                    );
                    Err(forbidden(request, pod, &why))
                }
            }
        };
        Box::pin(std::future::ready(object.map_or(Ok(()), check)))
    }
}
