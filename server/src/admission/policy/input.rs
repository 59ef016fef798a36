//! What expressions see of a write.

use crate::admission::matching::namespace_of;
use crate::admission::request::kind_of;
use crate::admission::{AdmissionRequest, Operation};
use kubewright_core::cel::admission::{
    AUTHORIZER, NAMESPACE_OBJECT, OBJECT, OLD_OBJECT, PARAMS, REQUEST, REQUEST_RESOURCE, namespace_decl,
    request_decl,
};
use kubewright_core::cel::{Check, Evaluation, Opaque, PER_CALL_LIMIT, Val};
use kubewright_core::{ApiError, GroupVersionKind, GroupVersionResource, KindDescriptor, meta};
use serde_json::{Value, json};
use std::sync::Arc;

/// The variables of a write, without parameters.
pub(super) struct Input<'a> {
    pub(super) object: Option<&'a Value>,
    pub(super) old: Option<&'a Value>,
    /// `request`.
    request: Value,
    /// `namespaceObject`; null for what is in none.
    namespace: Value,
    resource: Check,
}

impl<'a> Input<'a> {
    /// What expressions see of a request for objects of `kind`.
    pub(super) fn of(
        request: &AdmissionRequest<'_>,
        kind: &KindDescriptor,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
        namespace: Value,
    ) -> Self {
        let name = match (request.name, object) {
            ("", Some(object)) if request.operation == Operation::Create => meta::name(object),
            (name, _) => name,
        };
        let resource = Check::of_resource(
            &request.resource.group,
            &request.resource.resource,
            request.subresource.unwrap_or(""),
            request.namespace,
            name,
        );
        Input { object, old, request: described(request, kind, name, object), namespace, resource }
    }

    /// An evaluation with these variables.
    pub(super) fn evaluation<'v>(&'v self, params: Option<&'v Value>) -> Evaluation<'v> {
        let mut run = Evaluation::new(PER_CALL_LIMIT);
        run.set(REQUEST_RESOURCE, Val::Opaque(Arc::new(Opaque::Check(Box::new(self.resource.clone())))));
        run.set(AUTHORIZER, Val::Opaque(Arc::new(Opaque::Check(Box::default()))));
        let dynamic = |value: Option<&'v Value>| value.map_or(Val::Null, Val::dynamic);
        run.set(OBJECT, dynamic(self.object));
        run.set(OLD_OBJECT, dynamic(self.old));
        run.set(PARAMS, dynamic(params));
        run.set(REQUEST, Val::from_json(&self.request, request_decl()));
        run.set(NAMESPACE_OBJECT, Val::from_json(&self.namespace, namespace_decl()));
        run
    }
}

fn kind_value(kind: &GroupVersionKind) -> Value {
    json!({"group": kind.group.as_str(), "version": kind.version.as_str(), "kind": kind.kind.as_str()})
}

fn resource_value(resource: &GroupVersionResource) -> Value {
    json!({"group": resource.group.as_str(), "version": resource.version.as_str(), "resource": resource.resource.as_str()})
}

fn described(
    request: &AdmissionRequest<'_>,
    kind: &KindDescriptor,
    name: &str,
    object: Option<&Value>,
) -> Value {
    let below = request.subresource.unwrap_or("");
    let user = request.user;
    let extra = user.extra.iter().flatten().collect::<std::collections::BTreeMap<_, _>>();
    json!({
        "kind": kind_value(&kind_of(kind, request.subresource)),
        "resource": resource_value(&kind.resource()),
        "subResource": below,
        "requestKind": kind_value(&request.request_kind()),
        "requestResource": resource_value(&request.resource),
        "requestSubResource": below,
        "name": name,
        "namespace": namespace_of(request, object),
        "operation": request.operation.as_str(),
        "userInfo": {
            "username": user.username.as_deref().unwrap_or(""),
            "uid": user.uid.as_deref().unwrap_or(""),
            "groups": user.groups.as_deref().unwrap_or(&[]),
            "extra": extra,
        },
        "dryRun": request.dry_run,
        "options": request.options.to_value(),
    })
}

/// The namespace that a write is in, as expressions see it; null for what is in none, and for a Namespace itself.
///
/// # Errors
/// 404 where it is not there.
pub(super) fn namespace_object(request: &AdmissionRequest<'_>) -> Result<Value, ApiError> {
    let own = request.resource.group.is_empty() && request.resource.resource == "namespaces";
    if request.namespace.is_empty() || own {
        return Ok(Value::Null);
    }
    let namespaces = GroupVersionResource::new("", "v1", "namespaces");
    match request.reader.get(&namespaces, "", request.namespace)? {
        Some(found) => found.value(),
        None => Err(ApiError::not_found("", "namespaces", request.namespace)),
    }
}
