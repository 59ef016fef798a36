//! `serviceaccounts/token`: a token for a service account, bound to an object if wanted.

use crate::admission::Operation;
use crate::handlers::{Call, read};
use crate::pipeline;
use crate::ports::{BoundObject, ServiceAccountRef};
use kubewright_core::{ApiError, ApiResponse, GroupVersionResource, ResponseBody, meta};
use serde_json::{Value, json};

pub(super) async fn create(call: Call) -> Result<ApiResponse, ApiError> {
    let (mut request, _) = pipeline::document(&call.body)?;
    if !request.is_object() {
        return Err(ApiError::bad_request(
            "the object provided is unrecognized (must be of type TokenRequest)",
        ));
    }
    let Some(tokens) = call.server.tokens.load_full() else {
        return Err(ApiError::not_implemented("serviceaccounts/token: this server has no token issuer"));
    };
    let name = call.name()?;
    let named = meta::name(&request);
    if !named.is_empty() && named != name {
        let why = format!(
            "metadata.name: Invalid value: {named:?}: must match the service account name if specified"
        );
        return Err(ApiError::bad_request(why));
    }
    let entry = read::current(&call, name).await?;
    let header = entry.shape.object.header();
    let account = ServiceAccountRef {
        namespace: call.namespace.clone(),
        name: header.name.to_string(),
        uid: header.uid.to_string(),
    };
    let bound = bound(&call, &request)?;
    request["apiVersion"] = json!("authentication.k8s.io/v1");
    request["kind"] = json!("TokenRequest");
    request["metadata"] = json!({"name": account.name, "namespace": account.namespace,
        "creationTimestamp": meta::format_time(call.now)});
    let asked = pipeline::admission_request(&call, Operation::Create, name, None);
    pipeline::admit(&call, &asked, Some(&mut request)).await?;
    pipeline::admit_validate(&call, &asked, Some(&request)).await?;
    let answer = tokens.issue(account, bound, request).await?;
    Ok(ApiResponse::new(201, ResponseBody::Value(answer)))
}

/// The object that the token is bound to, which must exist.
fn bound(call: &Call, request: &Value) -> Result<Option<BoundObject>, ApiError> {
    let wanted = &request["spec"]["boundObjectRef"];
    if wanted.is_null() {
        return Ok(None);
    }
    let text = |field: &str| wanted[field].as_str().unwrap_or("").to_owned();
    let (kind, name) = (text("kind"), text("name"));
    let (plural, namespace) = match (text("apiVersion").as_str(), kind.as_str()) {
        ("v1" | "", "Pod") => ("pods", call.namespace.as_str()),
        ("v1" | "", "Secret") => ("secrets", call.namespace.as_str()),
        ("v1" | "", "Node") => ("nodes", ""),
        (version, _) => {
            let why = format!("cannot bind token to object of type {version}, Kind={kind}");
            return Err(ApiError::bad_request(why));
        }
    };
    let reader = &call.server.reader;
    let resource = GroupVersionResource::new("", "v1", plural);
    let object =
        reader.get(&resource, namespace, &name)?.ok_or_else(|| ApiError::not_found("", plural, &name))?;
    let uid = object.header().uid.to_string();
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. \
             The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(ApiError::conflict("", plural, &name, &why));
    }
    let node = match plural {
        "pods" => {
            let pod = object.value()?;
            let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or("");
            if account != call.name()? {
                let why = format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    call.name()?
                );
                return Err(ApiError::bad_request(why));
            }
            let node = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()).map(str::to_owned);
            let nodes = GroupVersionResource::new("", "v1", "nodes");
            match node {
                None => None,
                Some(node) => {
                    let found = reader.get(&nodes, "", &node)?;
                    Some((node, found.map(|n| n.header().uid.to_string()).unwrap_or_default()))
                }
            }
        }
        _ => None,
    };
    Ok(Some(BoundObject { kind, name, uid, node }))
}
