//! `pods/eviction`: deletes a pod if its disruption budget allows.

use super::binding::success;
use crate::admission::Operation;
use crate::handlers::{Call, delete, read, update};
use crate::pipeline;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use kubewright_core::{ApiError, ApiResponse, GroupVersionResource, RequestBody, Selector, meta};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn create(mut call: Call) -> Result<ApiResponse, ApiError> {
    let (mut eviction, _) = pipeline::document(&call.body)?;
    if !eviction.is_object() {
        return Err(ApiError::bad_request("the object provided is unrecognized (must be of type Eviction)"));
    }
    let name = call.name()?.to_owned();
    let named = meta::name(&eviction);
    if !named.is_empty() && named != name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let request = pipeline::admission_request(&call, Operation::Create, &name, None);
    pipeline::admit(&call, &request, Some(&mut eviction)).await?;
    pipeline::admit_validate(&call, &request, Some(&eviction)).await?;
    drop(request);
    let entry = read::current(&call, &name).await?;
    let pod = entry.shape.object.value()?;
    if !exempt(&pod) {
        spend(&call, &pod).await?;
    }
    let options = eviction.get("deleteOptions").cloned().unwrap_or_else(|| json!({}));
    call.options.dry_run |= options["dryRun"].as_array().is_some_and(|d| d.iter().any(|d| d == "All"));
    call.body = RequestBody::Value { content_type: kubewright_core::ContentType::Json, value: options };
    call.subresource = None;
    delete::evict(call).await?;
    Ok(success(201))
}

/// Pods that no budget protects: those that run no more, or do not yet.
fn exempt(pod: &Value) -> bool {
    meta::is_deleting(pod)
        || matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
}

fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// Takes one disruption out of the pod's budget.
async fn spend(call: &Call, pod: &Value) -> Result<(), ApiError> {
    let resource = GroupVersionResource::new("policy", "v1", "poddisruptionbudgets");
    let Some(kind) = call.server.kinds.get(&resource) else { return Ok(()) };
    let mut budgets = Vec::new();
    for object in call.server.reader.list(&resource, &call.namespace)? {
        let budget = object.value()?;
        let selector = Selector::from_value(budget.pointer("/spec/selector"))?;
        if selector.matches(&meta::labels(pod)) {
            budgets.push(budget);
        }
    }
    let budget = match budgets.as_slice() {
        [] => return Ok(()),
        [budget] => budget,
        _ => {
            let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiError::internal(why));
        }
    };
    if !ready(pod) && may_go_unready(budget) {
        return Ok(());
    }
    let name = meta::name(budget).to_owned();
    let call = Call { kind: Arc::clone(&kind), ..call.for_object(&name) };
    let (pod_name, now) = (meta::name(pod).to_owned(), meta::format_time(call.now));
    update::edit(&call, &name, &|budget: &mut Value| take(budget, &pod_name, &now)).await.map(drop)
}

/// Whether the budget lets pods go that are not ready.
fn may_go_unready(budget: &Value) -> bool {
    let status = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        || (status("currentHealthy") >= status("desiredHealthy") && status("desiredHealthy") > 0)
}

fn take(budget: &mut Value, pod: &str, now: &str) -> Result<(), ApiError> {
    let number = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let refused = |why: String, seconds: i32| {
        let cause =
            StatusCause { reason: Some("DisruptionBudget".to_owned()), message: Some(why), field: None };
        Err(ApiError::too_many_requests(message, seconds).with_causes(vec![cause]))
    };
    let name = meta::name(budget);
    if number("observedGeneration") < meta::generation(budget) {
        return refused(format!("The disruption budget {name} is still being processed by the server."), 10);
    }
    let left = number("disruptionsAllowed");
    if left <= 0 {
        let (wanted, has) = (number("desiredHealthy"), number("currentHealthy"));
        return refused(
            format!("The disruption budget {name} needs {wanted} healthy pods and has {has} currently"),
            0,
        );
    }
    budget["status"]["disruptionsAllowed"] = json!(left - 1);
    if !budget["status"]["disruptedPods"].is_object() {
        budget["status"]["disruptedPods"] = json!({});
    }
    budget["status"]["disruptedPods"][pod] = json!(now);
    Ok(())
}
