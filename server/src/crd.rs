//! Kinds that come and go at run time: what the stored CustomResourceDefinitions make the server serve, and how one goes.

use crate::cache::{CacheEvent, Listener, ObjectCache, ResourceCache, Snapshot};
use crate::handlers::{Call, delete, update};
use crate::keys::ResourceId;
use crate::kinds::KindTable;
use crate::server::Shared;
use kubewright_core::api::apiextensions::{descriptors, is_established, update_status};
use kubewright_core::{
    ApiError, ApiRequest, ContentType, GroupVersionResource, KindDescriptor, Reason, UserInfo, Verb, meta,
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Holds a definition until its instances are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
const RETRY: Duration = Duration::from_millis(500);

pub(crate) fn resource() -> GroupVersionResource {
    GroupVersionResource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

pub(crate) fn is_definition(group: &str, plural: &str) -> bool {
    group == "apiextensions.k8s.io" && plural == "customresourcedefinitions"
}

/// The version of a definition and its kinds.
type Made = (String, Vec<Arc<KindDescriptor>>);

/// Keeps the kinds in step with the definitions.
pub(crate) struct Definitions {
    kinds: Arc<KindTable>,
    /// What each definition made, with the version that it had then: a schema and its rules are compiled once.
    made: Mutex<FxHashMap<String, Made>>,
    /// Told when a definition is being deleted.
    going: Arc<Notify>,
}

impl Definitions {
    pub(crate) fn new(kinds: Arc<KindTable>, going: Arc<Notify>) -> Self {
        Definitions { kinds, made: Mutex::default(), going }
    }

    fn serve(&self, snapshot: &Snapshot) {
        let mut made = self.made.lock();
        let mut now = FxHashMap::default();
        let mut served: Vec<Arc<KindDescriptor>> = Vec::new();
        let mut ending = Vec::new();
        for (_, entry) in snapshot.range(b"", b"") {
            let Ok(definition) = entry.shape.object.value() else { continue };
            if meta::is_deleting(&definition) {
                let text = |v: &Value| v.as_str().unwrap_or("").into();
                let spec = &definition["spec"];
                ending.push(ResourceId {
                    group: text(&spec["group"]),
                    resource: text(&spec["names"]["plural"]),
                });
            }
            if !is_established(&definition) {
                continue;
            }
            let (name, version) =
                (meta::name(&definition), definition["metadata"]["resourceVersion"].as_str());
            let known = made.remove(name).filter(|(was, _)| Some(was.as_str()) == version);
            let kinds = match known {
                Some((_, kinds)) => kinds,
                None => match descriptors(&definition) {
                    Ok(kinds) => kinds.into_iter().map(Arc::new).collect(),
                    Err(errors) => {
                        tracing::error!(name, ?errors, "a definition cannot be served");
                        continue;
                    }
                },
            };
            served.extend(kinds.iter().cloned());
            now.insert(name.to_owned(), (version.unwrap_or("").to_owned(), kinds));
        }
        *made = now;
        drop(made);
        if let Err(e) = self.kinds.replace_custom(served, &ending) {
            tracing::error!(error = %e, "the custom kinds cannot be served");
        }
        if !ending.is_empty() {
            self.going.notify_one();
        }
    }
}

impl Listener for Definitions {
    fn changed(&self, resource: &ResourceCache, events: &[Arc<CacheEvent>]) {
        if is_definition(&resource.id.group, &resource.id.resource) && !events.is_empty() {
            self.serve(&resource.snapshot());
        }
    }

    fn reloaded(&self, cache: &ObjectCache) {
        let resource = resource();
        let id = ResourceId { group: resource.group, resource: resource.resource };
        self.serve(&cache.resource(&id).snapshot());
    }
}

/// Works out names and conditions of a definition that is about to be written, and puts the cleanup finalizer on it.
pub(crate) fn settle(call: &Call, definition: &mut Value, created: bool) -> Result<(), ApiError> {
    if created {
        let has = meta::finalizers(definition).any(|f| f == CLEANUP);
        if !has && let Some(metadata) = meta::metadata_mut(definition) {
            match metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
                Some(list) => list.push(json!(CLEANUP)),
                None => drop(metadata.insert("finalizers".to_owned(), json!([CLEANUP]))),
            }
        }
    }
    let mut others = Vec::new();
    for object in call.server.reader.list(&resource(), "")? {
        if object.header().name != meta::name(definition) {
            others.push(object.value()?);
        }
    }
    update_status(definition, &others, call.now);
    Ok(())
}

/// Refuses a new instance of a kind whose definition is being deleted.
///
/// # Errors
/// 405 in upstream's words.
pub(crate) fn accepts_new(call: &Call) -> Result<(), ApiError> {
    if !call.kind.ending {
        return Ok(());
    }
    let words = "create not allowed while custom resource definition is terminating";
    Err(ApiError::new(Reason::MethodNotAllowed, words))
}

/// Ends definitions that are being deleted: their instances first, then the finalizer.
pub(crate) async fn clean_up(shared: Weak<Shared>, going: Arc<Notify>, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = going.notified() => {}
        }
        loop {
            let Some(server) = shared.upgrade() else { return };
            let left = sweep(&server).await;
            drop(server);
            match left {
                Ok(false) => break,
                Ok(true) => {}
                Err(e) => tracing::warn!(error = %e, "a definition's instances could not be deleted yet"),
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}

/// One pass over the definitions that are going; whether any is left.
async fn sweep(server: &Arc<Shared>) -> Result<bool, ApiError> {
    let mut left = false;
    for object in server.reader.list(&resource(), "")? {
        let definition = object.value()?;
        if !meta::is_deleting(&definition) || !meta::finalizers(&definition).any(|f| f == CLEANUP) {
            continue;
        }
        if empty_out(server, &definition).await? {
            let name = meta::name(&definition);
            let call = internal(server, ApiRequest::resource(Verb::Patch, resource(), None, Some(name)))?;
            let change = |old: &Value| {
                let mut object = old.clone();
                meta::remove_finalizer(&mut object, CLEANUP);
                Ok(update::Changed::by_update(object, Vec::new()))
            };
            match update::apply(&call, Some("cleanup"), &change, &mut Vec::new()).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
        } else {
            left = true;
        }
    }
    Ok(left)
}

/// Deletes the instances of a definition; whether none is left.
async fn empty_out(server: &Arc<Shared>, definition: &Value) -> Result<bool, ApiError> {
    let text = |path: &str| definition.pointer(path).and_then(Value::as_str).unwrap_or("").to_owned();
    let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
    let kinds = server.kinds.load();
    // The version in which they are stored needs no conversion.
    let of_definition = |k: &&Arc<KindDescriptor>| {
        k.group == group
            && k.plural == plural
            && k.stored_as.is_none()
            && !server.kinds.is_builtin(&k.resource())
    };
    let Some(kind) = kinds.registry.iter().find(of_definition).cloned() else { return Ok(true) };
    let id = ResourceId::of(&kind);
    let objects = server.cache.resource(&id).snapshot();
    for (_, entry) in objects.range(b"", b"") {
        let header = entry.shape.object.header();
        let namespace = Some(header.namespace.as_str()).filter(|n| !n.is_empty());
        let request = ApiRequest::resource(Verb::Delete, kind.resource(), namespace, Some(&header.name));
        match delete::delete(internal(server, request.body(ContentType::Json, Value::Null))?).await {
            Err(e) if !e.is_not_found() => return Err(e),
            _ => {}
        }
    }
    server.cache.consistent().await?;
    Ok(server.cache.resource(&id).snapshot().len() == 0)
}

/// A call of the server to itself.
pub(crate) fn internal(server: &Arc<Shared>, mut request: ApiRequest) -> Result<Call, ApiError> {
    request.user = Arc::new(UserInfo {
        username: Some("system:apiserver".to_owned()),
        groups: Some(vec!["system:masters".to_owned(), "system:authenticated".to_owned()]),
        ..UserInfo::default()
    });
    let kubewright_core::Target::Resource { resource, .. } = &request.target else {
        return Err(ApiError::no_such_path());
    };
    let kind = server.kinds.get(resource).ok_or_else(ApiError::no_such_path)?;
    Call::new(server.clone(), kind, request)
}
