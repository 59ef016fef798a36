//! A new node takes no pods until it was seen to be ready.

use super::{Admission, AdmissionRequest, Operation};
use futures::future::BoxFuture;
use kubewright_core::ApiError;
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Upstream's plugin of this name.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaintNodesByCondition;

impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        request.operation == Operation::Create
            && request.resource.group.is_empty()
            && request.resource.resource == "nodes"
            && request.subresource.is_none()
    }

    fn validates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let _ = request;
        if let Some(object) = object {
            taint(object);
        }
        Box::pin(async { Ok(()) })
    }
}

fn taint(node: &mut Value) {
    if !node.is_object() || !(node["spec"].is_object() || node["spec"].is_null()) {
        return;
    }
    let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    if !taints.iter().any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule") {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
    node["spec"]["taints"] = Value::Array(taints);
}
