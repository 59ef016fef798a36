//! A pod that asks for extended resources tolerates the taints of the nodes that are kept for them.

use crate::admission::json::{containers, list, sub};
use crate::admission::runtime_class::merge_tolerations;
use crate::admission::{Admission, AdmissionRequest};
use futures::future::BoxFuture;
use kubewright_core::ApiError;
use kubewright_core::quota::is_extended;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Upstream's plugin of this name.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtendedResourceToleration;

impl Admission for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        request.creates_pod()
    }

    fn validates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn mutate<'a>(
        &'a self,
        _: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        if let Some(pod) = object {
            let asked = containers(&pod["spec"])
                .flat_map(|c| sub(sub(c, "resources"), "requests").as_object().into_iter().flatten());
            let names: BTreeSet<String> =
                asked.map(|(name, _)| name).filter(|name| is_extended(name)).cloned().collect();
            let more: Vec<Value> =
                names.iter().map(|name| json!({"key": name, "operator": "Exists"})).collect();
            if !more.is_empty() {
                let merged = merge_tolerations(list(&pod["spec"], "tolerations"), &more);
                pod["spec"]["tolerations"] = Value::Array(merged);
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }
}
