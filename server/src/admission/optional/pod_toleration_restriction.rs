//! The pods of a namespace get the tolerations of its annotation, and tolerate nothing that another one does not allow.

use super::namespace_annotation;
use crate::admission::json::list;
use crate::admission::runtime_class::{covers, merge_tolerations};
use crate::admission::{Admission, AdmissionRequest, forbidden};
use futures::future::BoxFuture;
use kubewright_core::ApiError;
use kubewright_core::api::core::pod::qos_class;
use serde_json::{Value, json};

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

/// Upstream's plugin of this name.
#[derive(Clone, Debug, Default)]
pub struct PodTolerationRestriction {
    default: Vec<Value>,
    allowed: Vec<Value>,
}

impl PodTolerationRestriction {
    /// What namespaces without annotations get and allow; nothing is bound where nothing is said.
    pub fn new(default: Vec<Value>, allowed: Vec<Value>) -> Self {
        PodTolerationRestriction { default, allowed }
    }
}

fn annotated(request: &AdmissionRequest<'_>, key: &str) -> Result<Option<Vec<Value>>, ApiError> {
    let Some(text) = namespace_annotation(request, key)? else { return Ok(None) };
    if text.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let wrong = |e: serde_json::Error| {
        ApiError::internal(format!(
            "the annotation {key} of namespace {} is no list of tolerations: {e}",
            request.namespace
        ))
    };
    serde_json::from_str(&text).map(Some).map_err(wrong)
}

impl Admission for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        "PodTolerationRestriction"
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        request.creates_pod()
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        request.creates_pod()
    }

    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let merge = |pod: &mut Value| {
            let mut more = annotated(request, DEFAULTS)?.unwrap_or_else(|| self.default.clone());
            if qos_class(pod) != "BestEffort" {
                let key = "node.kubernetes.io/memory-pressure";
                more.push(json!({"key": key, "operator": "Exists", "effect": "NoSchedule"}));
            }
            if !more.is_empty() {
                let merged = merge_tolerations(list(&pod["spec"], "tolerations"), &more);
                pod["spec"]["tolerations"] = Value::Array(merged);
            }
            Ok(())
        };
        let done = object.filter(|pod| pod["spec"].is_object()).map_or(Ok(()), merge);
        Box::pin(std::future::ready(done))
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let check = |pod: &Value| {
            let allowed = annotated(request, ALLOWED)?.unwrap_or_else(|| self.allowed.clone());
            let within = |t: &Value| allowed.iter().any(|a| covers(a, t));
            if allowed.is_empty() || list(&pod["spec"], "tolerations").iter().all(within) {
                return Ok(());
            }
            let why = "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist";
            Err(forbidden(request, pod, why))
        };
        Box::pin(std::future::ready(object.map_or(Ok(()), check)))
    }
}
