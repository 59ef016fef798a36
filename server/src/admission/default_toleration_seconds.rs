//! Every pod stays five minutes on a node that is not ready or not reachable, unless it says otherwise.

use super::{Admission, AdmissionRequest};
use futures::future::BoxFuture;
use kubewright_core::ApiError;
use serde_json::{Value, json};

const KEYS: &[&str] = &["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

/// Upstream's plugin of this name.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultTolerationSeconds;

impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn mutates(&self, request: &AdmissionRequest<'_>) -> bool {
        request.creates_pod()
    }

    fn validates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn mutate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        if let Some(pod) = object.filter(|o| request.creates_pod() && o["spec"].is_object()) {
            tolerate(&mut pod["spec"]);
        }
        Box::pin(async { Ok(()) })
    }
}

fn tolerate(spec: &mut Value) {
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for key in KEYS {
        let tolerated = tolerations.iter().any(|t| {
            let text = |field: &str| t[field].as_str().unwrap_or("");
            (text("key") == *key || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
        });
        if !tolerated {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
    spec["tolerations"] = Value::Array(tolerations);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tolerated_already_stays() {
        let check = |tolerations: Value, expected: usize| {
            let mut spec = json!({"tolerations": tolerations});
            tolerate(&mut spec);
            assert_eq!(spec["tolerations"].as_array().unwrap().len(), expected, "{spec}");
        };
        check(Value::Null, 2);
        check(json!([{"operator": "Exists"}]), 1);
        check(json!([{"key": KEYS[0], "operator": "Exists", "effect": "NoExecute"}]), 2);
        check(json!([{"key": KEYS[0], "operator": "Exists", "effect": "NoSchedule"}]), 3);
    }
}
