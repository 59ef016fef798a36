//! Who hands an object to an owner must be able to delete it, and who makes it hold an owner up must be able to hold that owner.

use crate::admission::json::{flag, list, sub, text};
use crate::admission::{Admission, AdmissionRequest, Operation, forbidden};
use crate::auth::{Attributes, Authorizer, Decision};
use futures::future::BoxFuture;
use kubewright_core::{ApiError, meta};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Upstream's plugin of this name.
pub struct OwnerReferencesPermissionEnforcement(Arc<dyn Authorizer>);

impl OwnerReferencesPermissionEnforcement {
    /// Asks this authorizer.
    pub fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        OwnerReferencesPermissionEnforcement(authorizer)
    }

    async fn ask(&self, attributes: &Attributes<'_>) -> Result<(), String> {
        match self.0.authorize(attributes).await {
            Decision::Allow => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => Err(why),
        }
    }

    async fn check(&self, request: &AdmissionRequest<'_>, object: &Value) -> Result<(), ApiError> {
        let empty = Value::Null;
        let old = request.old.unwrap_or(&empty);
        let owners = |object| list(sub(object, "metadata"), "ownerReferences");
        if owners(object) == owners(old) {
            return Ok(());
        }
        if request.operation == Operation::Update {
            let delete = Attributes {
                user: Cow::Borrowed(request.user),
                verb: "delete",
                group: &request.resource.group,
                version: &request.resource.version,
                resource: &request.resource.resource,
                namespace: request.namespace,
                name: meta::name(object),
                ..Attributes::default()
            };
            if let Err(why) = self.ask(&delete).await {
                let why = format!("cannot set an ownerRef on a resource you can't delete: {why}, <nil>");
                return Err(forbidden(request, object, &why));
            }
        }
        let blocked = |owner: &&Value| {
            let uid = text(owner, "uid");
            let before = owners(old).iter().find(|o| text(o, "uid") == uid);
            flag(owner, "blockOwnerDeletion") && !before.is_some_and(|o| flag(o, "blockOwnerDeletion"))
        };
        for owner in owners(object).iter().filter(blocked) {
            self.check_blocking(request, object, owner).await?;
        }
        Ok(())
    }

    async fn check_blocking(
        &self,
        request: &AdmissionRequest<'_>,
        object: &Value,
        owner: &Value,
    ) -> Result<(), ApiError> {
        let (api_version, kind) = (text(owner, "apiVersion"), text(owner, "kind"));
        let kinds = request.reader.kinds.load();
        let found = kinds.registry.iter().find(|k| k.kind == kind && k.api_version() == api_version);
        let Some(found) = found else {
            let why = format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind {kind}"
            );
            return Err(forbidden(request, object, &why));
        };
        let update = Attributes {
            user: Cow::Borrowed(request.user),
            verb: "update",
            group: &found.group,
            version: &found.version,
            resource: &found.plural,
            subresource: "finalizers",
            namespace: if found.namespaced() { request.namespace } else { "" },
            name: text(owner, "name"),
            ..Attributes::default()
        };
        let Err(why) = self.ask(&update).await else { return Ok(()) };
        let why = format!(
            "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {why}, <nil>"
        );
        Err(forbidden(request, object, &why))
    }
}

impl fmt::Debug for OwnerReferencesPermissionEnforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerReferencesPermissionEnforcement")
    }
}

impl Admission for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn mutates(&self, _: &AdmissionRequest<'_>) -> bool {
        false
    }

    fn validates(&self, request: &AdmissionRequest<'_>) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && (request.subresource.is_none() || request.subresource == Some("status"))
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            match object {
                Some(object) => self.check(request, object).await,
                None => Ok(()),
            }
        })
    }
}
