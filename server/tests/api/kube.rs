//! A server with the kinds of Kubernetes and its own admission, and short ways to ask it.

use crate::common::*;
use kubewright_core::api::{BuiltinOptions, builtin};
use kubewright_core::{
    ApiError, ApiRequest, ApiResponse, ContentType, GroupVersionResource, Options, UserInfo, Verb,
};
use kubewright_server::{ApiServer, ApiServerBuilder};
use serde_json::{Value, json};

pub(crate) fn kube_builder() -> ApiServerBuilder {
    let mut builder = ApiServer::builder(store()).service_cidr("10.0.0.0/24");
    for kind in builtin(&BuiltinOptions::default()) {
        builder = builder.kind(kind);
    }
    builder
}

/// With the default service account in `default`.
pub(crate) async fn kube() -> Plane {
    kube_with(kube_builder()).await
}

pub(crate) async fn kube_with(builder: ApiServerBuilder) -> Plane {
    let plane = Plane(builder.build().await.unwrap());
    plane.make("serviceaccounts", json!({"metadata": {"name": "default"}})).await.unwrap();
    plane
}

/// `pods`, `deployments.apps`, in version v1.
pub(crate) fn gvr(resource: &str) -> GroupVersionResource {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    GroupVersionResource::new(group, "v1", plural)
}

pub(crate) fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        username: Some(name.to_owned()),
        groups: Some(groups.iter().map(|g| (*g).to_owned()).collect()),
        ..UserInfo::default()
    }
}

/// Which object: `deployments.apps` in `default`, with a subresource after a slash; the cluster's own with a leading `/`.
pub(crate) fn ask(verb: Verb, what: &str, name: Option<&str>) -> ApiRequest {
    let (what, namespace) = match what.strip_prefix('/') {
        Some(what) => (what, None),
        None => (what, Some("default")),
    };
    let (what, subresource) = what.split_once('/').unwrap_or((what, ""));
    let request = ApiRequest::resource(verb, gvr(what), namespace, name);
    if subresource.is_empty() { request } else { request.subresource(subresource) }
}

impl Plane {
    pub(crate) async fn make(&self, what: &str, object: Value) -> Result<Value, ApiError> {
        self.value(ask(Verb::Create, what, None).body(ContentType::Json, object)).await
    }

    pub(crate) async fn make_as(&self, who: &UserInfo, what: &str, object: Value) -> Result<Value, ApiError> {
        let mut request = ask(Verb::Create, what, None).body(ContentType::Json, object);
        request.user = who.clone().into();
        self.value(request).await
    }

    pub(crate) async fn warned(&self, what: &str, object: Value) -> Result<Vec<String>, ApiError> {
        let request = ask(Verb::Create, what, None).body(ContentType::Json, object);
        self.send(request).await.map(|r: ApiResponse| r.warnings)
    }

    pub(crate) async fn read(&self, what: &str, name: &str) -> Result<Value, ApiError> {
        self.value(ask(Verb::Get, what, Some(name))).await
    }

    pub(crate) async fn merge(&self, what: &str, name: &str, patch: Value) -> Result<Value, ApiError> {
        self.value(ask(Verb::Patch, what, Some(name)).body(ContentType::MergePatch, patch)).await
    }

    pub(crate) async fn merge_as(
        &self,
        who: &UserInfo,
        what: &str,
        name: &str,
        patch: Value,
    ) -> Result<Value, ApiError> {
        let mut request = ask(Verb::Patch, what, Some(name)).body(ContentType::MergePatch, patch);
        request.user = who.clone().into();
        self.value(request).await
    }

    pub(crate) async fn drop_as(&self, who: &UserInfo, what: &str, name: &str) -> Result<Value, ApiError> {
        let mut request = ask(Verb::Delete, what, Some(name));
        request.user = who.clone().into();
        self.value(request).await
    }

    /// As `make`, but nothing is kept.
    pub(crate) async fn try_out(&self, what: &str, object: Value) -> Result<Value, ApiError> {
        let mut request = ask(Verb::Create, what, None).body(ContentType::Json, object);
        request.options = Options { dry_run: true, ..Options::default() };
        self.value(request).await
    }
}

/// A pod of one container with these resources.
pub(crate) fn sized(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

/// What a refusal says, or `ok`.
pub(crate) fn told<T>(result: Result<T, ApiError>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(e) => format!("{} {}", e.code(), e.message()),
    }
}
