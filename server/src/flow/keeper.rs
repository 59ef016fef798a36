//! Keeps the objects of flow control: makes the mandatory and the suggested ones, gives back what was taken from them, says which
//! schemas lead nowhere, and brings every change into force.

use super::config::Objects;
use super::defaults::{self, AUTOUPDATE};
use super::{Control, FlowControl};
use crate::auth::authenticated;
use crate::server::ApiServer;
use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use kubewright_core::{
    ApiError, ApiRequest, ContentType, GroupVersionResource, Resource, ResponseBody, Verb, WatchStream,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

const RETRY: Duration = Duration::from_secs(1);
/// Writes at once, so that a store which groups commits flushes few times.
const WRITES_AT_ONCE: usize = 32;

/// Follows the objects until dropped.
pub(super) async fn keep(server: ApiServer, control: Arc<Control>) {
    loop {
        if let Err(e) = follow(&server, &control).await {
            tracing::debug!(error = %e, "the objects of flow control");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(server: &ApiServer, control: &Control) -> Result<(), ApiError> {
    let mut schemas = watch::<FlowSchema>(server).await?;
    let mut levels = watch::<PriorityLevelConfiguration>(server).await?;
    loop {
        let event = tokio::select! { e = schemas.next() => e, e = levels.next() => e };
        let Some(event) = event else { return Ok(()) };
        event?;
        bring(server, control).await?;
    }
}

async fn watch<K: Resource>(server: &ApiServer) -> Result<WatchStream, ApiError> {
    match server.clone().oneshot(request::<K>(Verb::Watch, None)).await?.body {
        ResponseBody::Watch(events) => Ok(events),
        other => Err(ApiError::internal(format!("a watch was expected, not {other:?}"))),
    }
}

/// Makes what is missing, mends what must not change, and puts the objects into force.
///
/// # Errors
/// The server's.
pub(super) async fn bring(server: &ApiServer, control: &Control) -> Result<(), ApiError> {
    if server.reader().changed_at(&FlowSchema::resource()).is_err() {
        // The plane does not serve these kinds: the defaults hold.
        return Ok(());
    }
    let objects = objects(server)?;
    let mut writes = Vec::new();
    for (name, spec) in defaults::levels() {
        let found = objects.levels.iter().find(|l| l.metadata.name.as_deref() == Some(name));
        writes.extend(ensure::<PriorityLevelConfiguration>(name, spec, found)?);
    }
    for (name, spec) in defaults::schemas() {
        let found = objects.schemas.iter().find(|s| s.metadata.name.as_deref() == Some(name));
        writes.extend(ensure::<FlowSchema>(name, spec, found)?);
    }
    let wrote = !writes.is_empty();
    all(server, writes).await?;
    let objects = if wrote {
        server.reader().consistent().await?;
        self::objects(server)?
    } else {
        objects
    };
    control.load(&objects);
    let now = kubewright_core::meta::format_time(control.clock.now());
    let conditions = objects.schemas.iter().filter_map(|s| dangling(s, &objects, &now)).collect();
    all(server, conditions).await
}

fn objects(server: &ApiServer) -> Result<Objects, ApiError> {
    fn list<K: Resource>(server: &ApiServer) -> Result<Vec<Arc<K>>, ApiError> {
        let objects = server.reader().list(&K::resource(), "")?;
        Ok(objects.iter().filter_map(|o| o.decode::<K>().ok()).collect())
    }
    Ok(Objects { schemas: list(server)?, levels: list(server)? })
}

async fn all(server: &ApiServer, writes: Vec<ApiRequest>) -> Result<(), ApiError> {
    let mut answers =
        stream::iter(writes).map(|request| server.clone().oneshot(request)).buffer_unordered(WRITES_AT_ONCE);
    while let Some(answer) = answers.next().await {
        match answer {
            // Another server of the same plane may be doing the same.
            Err(e) if !(e.is_already_exists() || e.is_conflict() || e.is_not_found()) => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// The write that makes an object, or brings it back to what it should be.
fn ensure<K: Resource>(
    name: &str,
    mut spec: Value,
    found: Option<&Arc<K>>,
) -> Result<Option<ApiRequest>, ApiError> {
    let Some(found) = found else {
        let object = json!({"apiVersion": K::API_VERSION, "kind": K::KIND,
            "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}}, "spec": spec});
        return Ok(Some(request::<K>(Verb::Create, None).body(ContentType::Json, object)));
    };
    let present = serde_json::to_value(&**found).map_err(ApiError::internal)?;
    let follows = present["metadata"]["annotations"][AUTOUPDATE] == "true";
    if !follows && !defaults::is_mandatory(name) {
        return Ok(None);
    }
    if K::KIND == "PriorityLevelConfiguration" && name == defaults::EXEMPT && !follows {
        // How much the exempt level lends is its owner's to say.
        spec["exempt"] = present["spec"]["exempt"].clone();
    }
    if present["spec"] == spec {
        return Ok(None);
    }
    let patch = json!([{"op": "replace", "path": "/spec", "value": spec}]);
    Ok(Some(request::<K>(Verb::Patch, Some(name)).body(ContentType::JsonPatch, patch)))
}

/// The write of a schema's condition, where it is not true (any more).
fn dangling(schema: &FlowSchema, objects: &Objects, now: &str) -> Option<ApiRequest> {
    let (name, spec) = (schema.metadata.name.as_deref()?, schema.spec.as_ref()?);
    let level = spec.priority_level_configuration.name.as_str();
    let there = objects.levels.iter().any(|l| l.metadata.name.as_deref() == Some(level));
    let (status, reason, end) = match there {
        true => ("False", "Found", "and it exists"),
        false => ("True", "NotFound", "but there is no such object"),
    };
    let message =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {end}");
    let conditions = schema.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let present = conditions.iter().find(|c| c.type_.as_deref() == Some("Dangling"));
    if present.is_some_and(|c| c.status.as_deref() == Some(status) && c.message.as_deref() == Some(&message))
    {
        return None;
    }
    let condition = json!({"type": "Dangling", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now});
    let patch = json!({"status": {"conditions": [condition]}});
    let request = request::<FlowSchema>(Verb::Patch, Some(name)).subresource("status");
    Some(request.body(ContentType::StrategicMergePatch, patch))
}

fn request<K: Resource>(verb: Verb, name: Option<&str>) -> ApiRequest {
    let resource: GroupVersionResource = K::resource();
    let mut request = ApiRequest::resource(verb, resource, None, name);
    request.user = authenticated("system:apiserver", &["system:masters"]).into();
    request.user_agent = "kube-apiserver".into();
    request.options.field_manager = Some("api-priority-and-fairness-config-producer-v1".to_owned());
    request
}

impl FlowControl {
    /// Brings the objects of flow control into a server, follows them from now on, and reads there how long lists are.
    ///
    /// # Errors
    /// The server's.
    pub async fn start(&self, server: &ApiServer) -> Result<(), ApiError> {
        let _ = self.control.reader.set(server.reader().clone());
        server.add_metrics(self.control.clone());
        bring(server, &self.control).await?;
        if server.reader().changed_at(&FlowSchema::resource()).is_ok() {
            let (server, control) = (server.clone(), self.control.clone());
            let spawn = || tokio_util::task::AbortOnDropHandle::new(tokio::spawn(keep(server, control)));
            self.keeper.get_or_init(spawn);
        }
        Ok(())
    }
}
