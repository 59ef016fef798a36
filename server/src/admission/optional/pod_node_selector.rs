//! The pods of a namespace run on the nodes that its annotation selects.

use super::namespace_annotation;
use crate::admission::{Admission, AdmissionRequest, forbidden};
use futures::future::BoxFuture;
use kubewright_core::ApiError;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";

/// Upstream's plugin of this name.
#[derive(Clone, Debug, Default)]
pub struct PodNodeSelector {
    default: BTreeMap<String, String>,
    allowed: BTreeMap<String, BTreeMap<String, String>>,
}

impl PodNodeSelector {
    /// Without a selector for namespaces that have none, and without bounds.
    pub fn new() -> Self {
        Self::default()
    }

    /// The selector of namespaces that have none of their own.
    #[must_use]
    pub fn default_selector(mut self, key: &str, value: &str) -> Self {
        self.default.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds a label that pods of a namespace may select; once there is one, they may select no other.
    #[must_use]
    pub fn allow(mut self, namespace: &str, key: &str, value: &str) -> Self {
        self.allowed.entry(namespace.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        self
    }

    fn of_namespace(&self, request: &AdmissionRequest<'_>) -> Result<BTreeMap<String, String>, ApiError> {
        let Some(text) = namespace_annotation(request, ANNOTATION)? else { return Ok(self.default.clone()) };
        let pair = |term: &str| {
            let (key, value) = term.split_once('=')?;
            Some((key.trim().to_owned(), value.trim_start_matches('=').trim().to_owned()))
        };
        text.split(',').filter(|t| !t.trim().is_empty()).map(pair).collect::<Option<_>>().ok_or_else(|| {
            ApiError::internal(format!(
                "the annotation {ANNOTATION} of namespace {} is no selector",
                request.namespace
            ))
        })
    }

    fn check_bounds(&self, request: &AdmissionRequest<'_>, pod: &Value) -> Result<(), ApiError> {
        let Some(allowed) = self.allowed.get(request.namespace).filter(|a| !a.is_empty()) else {
            return Ok(());
        };
        let mut wanted = pod["spec"]["nodeSelector"].as_object().into_iter().flatten();
        if wanted.all(|(key, value)| allowed.get(key).is_none_or(|a| value == a.as_str())) {
            return Ok(());
        }
        Err(forbidden(request, pod, "pod node label selector labels conflict with its namespace whitelist"))
    }
}

impl Admission for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
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
            for (key, value) in self.of_namespace(request)? {
                let has = &pod["spec"]["nodeSelector"][&key];
                if !has.is_null() && *has != value.as_str() {
                    let why = "pod node label selector conflicts with its namespace node label selector";
                    return Err(forbidden(request, pod, why));
                }
                if !pod["spec"]["nodeSelector"].is_object() {
                    pod["spec"]["nodeSelector"] = json!({});
                }
                pod["spec"]["nodeSelector"][key] = json!(value);
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
        let done = object.map_or(Ok(()), |pod| self.check_bounds(request, pod));
        Box::pin(std::future::ready(done))
    }
}
