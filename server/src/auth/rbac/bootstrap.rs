//! Creates the default roles and bindings at start, and gives back what was taken from them, as upstream does.

use super::aggregate::aggregate_once;
use super::defaults;
use super::namespaced;
use super::rules;
use crate::auth::authenticated;
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Subject};
use kubewright_core::{ApiError, ApiRequest, ApiResponse, ContentType, Resource, ResponseBody, Verb};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use tower::{Service, ServiceExt};

/// Writes at once, so that a store which groups commits flushes few times.
const WRITES_AT_ONCE: usize = 64;
pub(super) const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Brings the default roles and their bindings into the plane.
///
/// A cluster role or binding that exists keeps its additions and gets back its missing rules and subjects, unless its annotation
/// `rbac.authorization.kubernetes.io/autoupdate` is `false`. `service` must not ask for authorization.
///
/// # Errors
/// The service's.
///
/// # Cancel safety
/// Dropped in the middle, a part is written; the next start writes the rest.
pub async fn ensure_bootstrap_policy<S>(service: S) -> Result<(), ApiError>
where
    S: Service<ApiRequest, Response = ApiResponse, Error = ApiError> + Clone,
{
    let (roles, bindings) = futures::try_join!(
        existing::<S, ClusterRole>(&service),
        existing::<S, ClusterRoleBinding>(&service)
    )?;
    let mut writes = Vec::new();
    for role in defaults::cluster_roles() {
        writes.extend(role_write(&role, roles.get(role.name()).map(|r| &**r))?);
    }
    for binding in defaults::cluster_role_bindings() {
        writes.extend(binding_write(&binding, bindings.get(binding.name()).map(|b| &**b))?);
    }
    let service = &service;
    stream::iter(writes)
        .map(|request| async move { write(service.clone(), request).await })
        .buffer_unordered(WRITES_AT_ONCE)
        .try_collect::<()>()
        .await?;
    stream::iter(namespaced::creates())
        .map(|request| async move {
            match write(service.clone(), request).await {
                // A plane without namespaces has no place for it.
                Err(e) if e.is_not_found() => Ok(()),
                result => result,
            }
        })
        .buffer_unordered(WRITES_AT_ONCE)
        .try_collect::<()>()
        .await?;
    aggregate_once(service).await.map(drop)
}

async fn existing<S, K: Resource>(service: &S) -> Result<HashMap<String, Arc<K>>, ApiError>
where
    S: Service<ApiRequest, Response = ApiResponse, Error = ApiError> + Clone,
{
    match service.clone().oneshot(request::<K>(Verb::List, None)).await?.body {
        ResponseBody::List(list) => {
            list.items.iter().map(|o| o.decode::<K>().map(|k| (k.name().to_owned(), k))).collect()
        }
        other => Err(ApiError::internal(format!("a list was expected, not {other:?}"))),
    }
}

/// Another server of the same plane may be doing the same.
async fn write<S>(service: S, request: ApiRequest) -> Result<(), ApiError>
where
    S: Service<ApiRequest, Response = ApiResponse, Error = ApiError>,
{
    match service.oneshot(request).await {
        Ok(_) => Ok(()),
        Err(e) if e.is_already_exists() || e.is_conflict() => Ok(()),
        Err(e) => Err(e),
    }
}

fn role_write(wanted: &ClusterRole, found: Option<&ClusterRole>) -> Result<Option<ApiRequest>, ApiError> {
    let Some(found) = found else { return create(wanted).map(Some) };
    if protected(found.metadata.annotations.as_ref()) {
        return Ok(None);
    }
    let mut merged = found.clone();
    if wanted.aggregation_rule.is_some() {
        merged.aggregation_rule = wanted.aggregation_rule.clone();
    } else {
        let owned = found.rules.clone().unwrap_or_default();
        let missing = rules::uncovered(&owned, wanted.rules.as_deref().unwrap_or_default());
        merged.rules.get_or_insert_default().extend(missing);
    }
    merged.metadata.labels.get_or_insert_default().extend(wanted.metadata.labels.clone().unwrap_or_default());
    if merged == *found { Ok(None) } else { update(&merged).map(Some) }
}

fn binding_write(
    wanted: &ClusterRoleBinding,
    found: Option<&ClusterRoleBinding>,
) -> Result<Option<ApiRequest>, ApiError> {
    let Some(found) = found else { return create(wanted).map(Some) };
    // A role reference cannot change; one that a person replaced stays.
    if protected(found.metadata.annotations.as_ref()) || found.role_ref != wanted.role_ref {
        return Ok(None);
    }
    let mut merged = found.clone();
    let subjects: &mut Vec<Subject> = merged.subjects.get_or_insert_default();
    for subject in wanted.subjects.iter().flatten() {
        if !subjects.contains(subject) {
            subjects.push(subject.clone());
        }
    }
    if merged == *found || (subjects_empty(&merged) && subjects_empty(found)) {
        return Ok(None);
    }
    update(&merged).map(Some)
}

fn subjects_empty(binding: &ClusterRoleBinding) -> bool {
    binding.subjects.as_ref().is_none_or(Vec::is_empty)
}

fn protected(annotations: Option<&std::collections::BTreeMap<String, String>>) -> bool {
    annotations.and_then(|a| a.get(AUTOUPDATE)).is_some_and(|v| v == "false")
}

fn create<K: Resource>(object: &K) -> Result<ApiRequest, ApiError> {
    Ok(request::<K>(Verb::Create, None).body(ContentType::Json, encode(object)?))
}

fn update<K: Resource>(object: &K) -> Result<ApiRequest, ApiError> {
    Ok(request::<K>(Verb::Update, Some(object.name())).body(ContentType::Json, encode(object)?))
}

fn encode<K: Resource>(object: &K) -> Result<Value, ApiError> {
    let mut value = serde_json::to_value(object).map_err(ApiError::internal)?;
    value["apiVersion"] = json!(K::API_VERSION);
    value["kind"] = json!(K::KIND);
    Ok(value)
}

fn request<K: Resource>(verb: Verb, name: Option<&str>) -> ApiRequest {
    let mut request = ApiRequest::resource(verb, K::resource(), None, name);
    request.user = authenticated("system:apiserver", &[super::MASTERS]).into();
    request.user_agent = "kube-apiserver".into();
    request
}
