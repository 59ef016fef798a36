//! A pod's priority is that of its PriorityClass.

use super::{Admission, AdmissionRequest};
use futures::future::BoxFuture;
use kubewright_core::{ApiError, GroupVersionResource, meta};
use serde_json::{Value, json};

/// The classes of the system's own pods and their values.
pub(crate) const SYSTEM_CLASSES: &[(&str, i64)] =
    &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// Upstream's plugin of this name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Priority;

impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
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
        Box::pin(async move {
            match object {
                Some(pod) if request.creates_pod() && pod["spec"].is_object() => admit(request, pod).await,
                _ => Ok(()),
            }
        })
    }
}

/// A class's name, number and preemption policy.
type Class = (String, i64, String);

async fn admit(request: &AdmissionRequest<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let wanted = pod["spec"]["priorityClassName"].as_str().unwrap_or("").to_owned();
    let refuse = |why: String| Err(ApiError::forbidden("", "pods", meta::name(pod), &why));
    let class = if wanted.is_empty() { global(request)? } else { named(request, &wanted).await? };
    let Some((name, value, policy)) = class else {
        if wanted.is_empty() {
            return set(pod, "", 0, "PreemptLowerPriority");
        }
        return refuse(format!("no PriorityClass with name {wanted} was found"));
    };
    set(pod, &name, value, &policy)
}

fn set(pod: &mut Value, class: &str, value: i64, policy: &str) -> Result<(), ApiError> {
    let given = pod["spec"]["priority"].as_i64();
    if let Some(given) = given.filter(|g| *g != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(ApiError::forbidden("", "pods", meta::name(pod), &why));
    }
    if !class.is_empty() {
        pod["spec"]["priorityClassName"] = json!(class);
    }
    pod["spec"]["priority"] = json!(value);
    if pod["spec"]["preemptionPolicy"].is_null() {
        pod["spec"]["preemptionPolicy"] = json!(policy);
    }
    Ok(())
}

fn classes() -> GroupVersionResource {
    GroupVersionResource::new("scheduling.k8s.io", "v1", "priorityclasses")
}

fn class(object: &Value) -> Class {
    let policy = object["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority");
    (meta::name(object).to_owned(), object["value"].as_i64().unwrap_or(0), policy.to_owned())
}

async fn named(request: &AdmissionRequest<'_>, name: &str) -> Result<Option<Class>, ApiError> {
    if let Some((_, value)) = SYSTEM_CLASSES.iter().find(|(n, _)| *n == name) {
        return Ok(Some((name.to_owned(), *value, "PreemptLowerPriority".to_owned())));
    }
    let find = || request.reader.get(&classes(), "", name).ok().flatten();
    if let Some(found) = find() {
        return Ok(Some(class(&*found.parsed()?)));
    }
    request.reader.consistent().await?;
    find().map(|found| Ok(class(&*found.parsed()?))).transpose()
}

/// The class for pods that name none; of several the one with the lowest number.
fn global(request: &AdmissionRequest<'_>) -> Result<Option<Class>, ApiError> {
    let Ok(all) = request.reader.list(&classes(), "") else { return Ok(None) };
    let mut found: Option<Class> = None;
    for object in all {
        let value = object.parsed()?;
        if value["globalDefault"] == json!(true) {
            let class = class(&value);
            if found.as_ref().is_none_or(|f| class.1 < f.1) {
                found = Some(class);
            }
        }
    }
    Ok(found)
}
