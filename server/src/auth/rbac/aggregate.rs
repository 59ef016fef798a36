//! Keeps the rules of aggregating cluster roles written down, so that `kubectl get clusterrole admin -o yaml` shows them.
//!
//! Decisions do not wait for it: they compute the same rules from the selected roles at once.

use super::policy::aggregated_rules;
use crate::auth::authenticated;
use futures::StreamExt;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kubewright_core::{ApiError, ApiRequest, ApiResponse, ContentType, Resource, ResponseBody, Verb};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tower::{Service, ServiceExt};

const RETRY: Duration = Duration::from_secs(1);

/// Follows the cluster roles and rewrites those that aggregate others, until dropped.
///
/// `service` must not ask for authorization, or allow `system:serviceaccount:kube-system:clusterrole-aggregation-controller` to list,
/// watch and patch cluster roles.
///
/// # Cancel safety
/// Dropping it ends the work; nothing is half written.
pub async fn keep_aggregated<S>(service: S)
where
    S: Service<ApiRequest, Response = ApiResponse, Error = ApiError> + Clone,
{
    loop {
        if let Err(e) = follow(&service).await {
            tracing::debug!(error = %e, "aggregated cluster roles");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow<S>(service: &S) -> Result<(), ApiError>
where
    S: Service<ApiRequest, Response = ApiResponse, Error = ApiError> + Clone,
{
    let mut revision = aggregate_once(service).await?;
    loop {
        let mut request = request(Verb::Watch, None);
        request.options.resource_version = Some(revision.to_string());
        let ResponseBody::Watch(mut events) = service.clone().oneshot(request).await?.body else {
            return Err(ApiError::internal("a watch was expected"));
        };
        while let Some(event) = events.next().await {
            // Our own writes come back too; they change nothing the second time.
            event?;
            revision = aggregate_once(service).await?;
        }
    }
}

/// Writes what differs; gives the revision of the list.
pub(super) async fn aggregate_once<S>(service: &S) -> Result<u64, ApiError>
where
    S: Service<ApiRequest, Response = ApiResponse, Error = ApiError> + Clone,
{
    let ResponseBody::List(list) = service.clone().oneshot(request(Verb::List, None)).await?.body else {
        return Err(ApiError::internal("a list was expected"));
    };
    let roles: Vec<Arc<ClusterRole>> = list.items.iter().map(|o| o.decode()).collect::<Result<_, _>>()?;
    for role in &roles {
        let Some(rules) = aggregated_rules(role, &roles) else { continue };
        if role.rules.as_deref().unwrap_or_default() == rules {
            continue;
        }
        let patch = json!({"rules": rules});
        let request = request(Verb::Patch, Some(role.name())).body(ContentType::MergePatch, patch);
        service.clone().oneshot(request).await?;
    }
    Ok(list.resource_version)
}

fn request(verb: Verb, name: Option<&str>) -> ApiRequest {
    let mut request = ApiRequest::resource(verb, ClusterRole::resource(), None, name);
    let user = "system:serviceaccount:kube-system:clusterrole-aggregation-controller";
    request.user =
        authenticated(user, &["system:serviceaccounts", "system:serviceaccounts:kube-system"]).into();
    request.user_agent = "clusterrole-aggregation-controller".into();
    request
}
