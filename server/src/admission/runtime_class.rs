//! A pod of a RuntimeClass gets its overhead, and runs where the class can run.

use super::json::{at, list, sub, text};
use super::{Admission, AdmissionRequest, forbidden};
use futures::future::BoxFuture;
use kubewright_core::quota::Amounts;
use kubewright_core::{ApiError, ApiObject, GroupVersionResource};
use serde_json::{Value, json};
use std::sync::Arc;

/// Upstream's plugin of this name.
#[derive(Clone, Copy, Debug, Default)]
pub struct RuntimeClass;

impl Admission for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
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
        Box::pin(async move {
            let Some(pod) = object else { return Ok(()) };
            match class(request, pod).await? {
                Some(class) => complete(request, pod, &class),
                None => Ok(()),
            }
        })
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let Some(pod) = object else { return Ok(()) };
            let class = class(request, pod).await?.unwrap_or_default();
            let (wanted, has) = (at(&class, &["overhead", "podFixed"]), at(pod, &["spec", "overhead"]));
            if !wanted.is_null() {
                return if same(wanted, has) { Ok(()) } else { Err(differs(request, pod)) };
            }
            if has.is_null() {
                return Ok(());
            }
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            Err(forbidden(request, pod, why))
        })
    }
}

fn differs(request: &AdmissionRequest<'_>, pod: &Value) -> ApiError {
    let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
    forbidden(request, pod, why)
}

fn same(a: &Value, b: &Value) -> bool {
    Amounts::parse(a) == Amounts::parse(b)
}

async fn class(request: &AdmissionRequest<'_>, pod: &Value) -> Result<Option<Value>, ApiError> {
    let name = text(sub(pod, "spec"), "runtimeClassName");
    if name.is_empty() {
        return Ok(None);
    }
    let classes = GroupVersionResource::new("node.k8s.io", "v1", "runtimeclasses");
    let find = || -> Option<Arc<ApiObject>> { request.reader.get(&classes, "", name).ok().flatten() };
    let found = match find() {
        Some(found) => Some(found),
        None => {
            request.reader.consistent().await?;
            find()
        }
    };
    match found {
        Some(found) => found.value().map(Some),
        None => Err(forbidden(request, pod, &format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

fn complete(request: &AdmissionRequest<'_>, pod: &mut Value, class: &Value) -> Result<(), ApiError> {
    let overhead = at(class, &["overhead", "podFixed"]);
    if !overhead.is_null() {
        let has = at(pod, &["spec", "overhead"]);
        if has.as_object().is_some_and(|o| !o.is_empty()) && !same(overhead, has) {
            return Err(differs(request, pod));
        }
        pod["spec"]["overhead"] = overhead.clone();
    }
    let scheduling = sub(class, "scheduling");
    for (key, value) in sub(scheduling, "nodeSelector").as_object().into_iter().flatten() {
        let has = &pod["spec"]["nodeSelector"][key];
        if !has.is_null() && has != value {
            let (wanted, has) = (value.as_str().unwrap_or(""), has.as_str().unwrap_or(""));
            return Err(forbidden(
                request,
                pod,
                &format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {has}"
                ),
            ));
        }
        if !pod["spec"]["nodeSelector"].is_object() {
            pod["spec"]["nodeSelector"] = json!({});
        }
        pod["spec"]["nodeSelector"][key] = value.clone();
    }
    let more = list(scheduling, "tolerations");
    if !more.is_empty() {
        let merged = merge_tolerations(list(sub(pod, "spec"), "tolerations"), more);
        pod["spec"]["tolerations"] = Value::Array(merged);
    }
    Ok(())
}

/// Both lists, without those that another one of them covers.
pub(super) fn merge_tolerations(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged = Vec::with_capacity(all.len());
    for (i, toleration) in all.iter().enumerate() {
        let covered = all.iter().enumerate().any(|(j, other)| {
            // Of two that are alike the first one stays.
            j != i && covers(other, toleration) && (j < i || !covers(toleration, other))
        });
        if !covered {
            merged.push((*toleration).clone());
        }
    }
    merged
}

/// Whether a toleration tolerates all that another does.
pub(super) fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let exists = |t: &Value| text(t, "operator") == "Exists";
    let (key, effect) = (text(wide, "key"), text(wide, "effect"));
    if text(narrow, "key") != key && !(key.is_empty() && exists(wide)) {
        return false;
    }
    if text(narrow, "effect") != effect && !effect.is_empty() {
        return false;
    }
    if effect == "NoExecute" {
        match (sub(wide, "tolerationSeconds").as_i64(), sub(narrow, "tolerationSeconds").as_i64()) {
            (Some(_), None) => return false,
            (Some(wide), Some(narrow)) if wide < narrow => return false,
            _ => {}
        }
    }
    match text(wide, "operator") {
        "Exists" => true,
        _ => !exists(narrow) && text(narrow, "value") == text(wide, "value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_are_merged_without_those_that_others_cover() {
        let check = |first: Value, second: Value, want: Value| {
            let list = |v: &Value| v.as_array().unwrap().clone();
            assert_eq!(Value::Array(merge_tolerations(&list(&first), &list(&second))), want);
        };
        let a = json!({"key": "a", "operator": "Equal", "value": "1", "effect": "NoSchedule"});
        let any = json!({"key": "a", "operator": "Exists"});
        check(json!([a]), json!([a]), json!([a]));
        check(json!([a]), json!([any]), json!([any]));
        check(
            json!([any]),
            json!([{"key": "b", "operator": "Exists"}]),
            json!([any, {"key": "b", "operator": "Exists"}]),
        );
    }
}
