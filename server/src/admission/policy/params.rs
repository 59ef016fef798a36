//! The parameters that a binding brings.

use super::table::{Binding, Definition};
use crate::admission::AdmissionRequest;
use kubewright_core::{KindDescriptor, meta};
use serde_json::Value;
use std::sync::Arc;

/// The parameters to evaluate with, one after the other; nothing stands for none.
///
/// # Errors
/// Why the binding cannot be used.
pub(super) fn collect(
    definition: &Definition,
    binding: &Binding,
    request: &AdmissionRequest<'_>,
) -> Result<Vec<Option<Value>>, String> {
    let Some((api_version, kind)) = &definition.param_kind else { return Ok(vec![None]) };
    let Some(reference) = &binding.params else { return Ok(vec![None]) };
    let found = descriptor(request, api_version, kind).ok_or_else(|| {
        format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'")
    })?;
    let namespace = match (found.namespaced(), reference.namespace.as_str()) {
        (false, "") => "",
        (false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        (true, "") if request.namespace.is_empty() => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .to_owned(),
            );
        }
        (true, "") => request.namespace,
        (true, own) => own,
    };
    let resource = found.resource();
    let mut params = Vec::new();
    match &reference.selector {
        None => {
            let object = request
                .reader
                .get(&resource, namespace, &reference.name)
                .map_err(|e| e.message().to_owned())?;
            params.extend(object.and_then(|o| o.value().ok()));
        }
        Some(selector) => {
            let objects = request.reader.list(&resource, namespace).map_err(|e| e.message().to_owned())?;
            let chosen = objects.iter().filter(|o| selector.matches(&o.header().labels));
            params.extend(chosen.filter_map(|o| o.value().ok()));
        }
    }
    if params.is_empty() && !reference.allows_none {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(params.into_iter().map(Some).collect())
}

/// What tells the parameters of one evaluation from others'.
pub(super) fn key(params: Option<&Value>) -> String {
    params.map_or_else(String::new, |p| {
        let namespace = p["metadata"]["namespace"].as_str().unwrap_or("");
        format!("{namespace}/{}", meta::name(p))
    })
}

fn descriptor(request: &AdmissionRequest<'_>, api_version: &str, kind: &str) -> Option<Arc<KindDescriptor>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    request.reader.kinds.load().registry.by_kind(group, version, kind).cloned()
}
