//! The typed client of one resource.

use crate::Client;
use futures::stream::{BoxStream, StreamExt};
use kubewright_core::{
    ApiError, ApiObject, ApiRequest, ApiResponse, ContentType, GroupVersionResource, ObjectList, Options,
    Resource, ResponseBody, Verb, WatchEvent, WatchEventType, WatchStream,
};
use serde_json::{Value, json};
use std::marker::PhantomData;
use std::sync::Arc;

/// The objects of a resource, in one namespace or in all, as `K`.
///
/// With `K = serde_json::Value` ([`Api::dynamic`]) it serves kinds that are known only at run time.
#[derive(Debug)]
pub struct Api<K> {
    client: Client,
    resource: GroupVersionResource,
    kind: String,
    namespace: Option<String>,
    _kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Api {
            client: self.client.clone(),
            resource: self.resource.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            _kind: PhantomData,
        }
    }
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds to end gracefully; `None` for the kind's default.
    pub grace_period_seconds: Option<i64>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation_policy: Option<&'static str>,
    /// Only if the object still has this uid.
    pub uid: Option<String>,
    /// Only if the object still has this version.
    pub resource_version: Option<String>,
}

/// A list with its revision.
#[derive(Clone, Debug)]
pub struct List<K> {
    /// The objects, shared with the server's cache in process.
    pub items: Vec<Arc<K>>,
    /// The revision to watch from.
    pub resource_version: u64,
    /// Token for the next page.
    pub continue_token: Option<String>,
}

/// A typed watch event.
#[derive(Clone, Debug)]
pub enum Event<K> {
    /// Added or changed.
    Applied(Arc<K>),
    /// Gone.
    Deleted(Arc<K>),
    /// Everything up to this revision was sent.
    Bookmark(u64),
}

impl<K: Resource> Api<K> {
    /// In every namespace, or a cluster-scoped kind.
    pub fn all(client: Client) -> Self {
        Self::build(client, K::resource(), K::KIND, None)
    }

    /// In one namespace.
    pub fn namespaced(client: Client, namespace: &str) -> Self {
        Self::build(client, K::resource(), K::KIND, Some(namespace.to_owned()))
    }
}

impl Api<Value> {
    /// Any resource, as JSON.
    pub fn dynamic(
        client: Client,
        resource: GroupVersionResource,
        kind: &str,
        namespace: Option<&str>,
    ) -> Self {
        Self::build(client, resource, kind, namespace.map(str::to_owned))
    }
}

impl<K> Api<K> {
    fn build(client: Client, resource: GroupVersionResource, kind: &str, namespace: Option<String>) -> Self {
        Api { client, resource, kind: kind.to_owned(), namespace, _kind: PhantomData }
    }

    /// The client underneath.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A request about this resource in this namespace.
    pub fn request(&self, verb: Verb, name: Option<&str>) -> ApiRequest {
        ApiRequest::resource(verb, self.resource.clone(), self.namespace.as_deref(), name)
    }

    /// Lists as the server's shared objects, undecoded.
    ///
    /// # Errors
    /// The server's.
    pub async fn list_objects(&self, options: Options) -> Result<ObjectList, ApiError> {
        let mut request = self.request(Verb::List, None);
        request.options = options;
        match self.client.send(request).await?.body {
            ResponseBody::List(list) => Ok(list),
            other => Err(ApiError::internal(format!("a list was expected, not {other:?}"))),
        }
    }

    /// Watches as the server's shared objects, undecoded.
    ///
    /// # Errors
    /// The server's; 410 where `resource_version` is too old.
    pub async fn watch_objects(&self, options: Options) -> Result<WatchStream, ApiError> {
        let mut request = self.request(Verb::Watch, None);
        request.options = options;
        match self.client.send(request).await?.body {
            ResponseBody::Watch(stream) => Ok(stream),
            other => Err(ApiError::internal(format!("a watch was expected, not {other:?}"))),
        }
    }
}

impl<K> Api<K>
where
    K: serde::Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    /// Reads one object.
    ///
    /// # Errors
    /// 404 where there is none.
    pub async fn get(&self, name: &str) -> Result<Arc<K>, ApiError> {
        self.object(self.request(Verb::Get, Some(name))).await
    }

    /// Reads one object if it exists.
    ///
    /// # Errors
    /// The server's, except 404.
    pub async fn get_opt(&self, name: &str) -> Result<Option<Arc<K>>, ApiError> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads a collection.
    ///
    /// # Errors
    /// The server's; 410 for an old continue token.
    pub async fn list(&self, options: Options) -> Result<List<K>, ApiError> {
        let list = self.list_objects(options).await?;
        let items = list.items.iter().map(|o| o.decode::<K>()).collect::<Result<_, _>>()?;
        Ok(List { items, resource_version: list.resource_version, continue_token: list.continue_token })
    }

    /// Follows a collection. An `Err` is the last item.
    ///
    /// # Errors
    /// The server's; 410 where `resource_version` is too old.
    pub async fn watch(
        &self,
        options: Options,
    ) -> Result<BoxStream<'static, Result<Event<K>, ApiError>>, ApiError> {
        Ok(self.watch_objects(options).await?.map(|event| typed(event?)).boxed())
    }

    /// Creates an object.
    ///
    /// # Errors
    /// 409 where the name is taken, 422 where it breaks a rule.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have created it.
    pub async fn create(&self, object: &K) -> Result<Arc<K>, ApiError> {
        let body = self.encode(object)?;
        self.object(self.request(Verb::Create, None).body(ContentType::Json, body)).await
    }

    /// Creates through a subresource (`binding`, `eviction`, `token`); gives what the server answers.
    ///
    /// # Errors
    /// The server's.
    pub async fn create_subresource(
        &self,
        name: &str,
        subresource: &str,
        body: Value,
    ) -> Result<ApiResponse, ApiError> {
        let request = self.request(Verb::Create, Some(name)).subresource(subresource);
        self.client.send(request.body(ContentType::Json, body)).await
    }

    /// Replaces an object; its `resourceVersion`, where set, must be the present one.
    ///
    /// # Errors
    /// 409 where it changed since, 404 where it is gone.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have replaced it.
    pub async fn replace(&self, name: &str, object: &K) -> Result<Arc<K>, ApiError> {
        let body = self.encode(object)?;
        self.object(self.request(Verb::Update, Some(name)).body(ContentType::Json, body)).await
    }

    /// Replaces an object's status.
    ///
    /// # Errors
    /// As [`Api::replace`].
    pub async fn replace_status(&self, name: &str, object: &K) -> Result<Arc<K>, ApiError> {
        let body = self.encode(object)?;
        let request = self.request(Verb::Update, Some(name)).subresource("status");
        self.object(request.body(ContentType::Json, body)).await
    }

    /// Patches an object.
    ///
    /// # Errors
    /// 404 where there is none, 422 where the result breaks a rule.
    pub async fn patch(&self, name: &str, how: ContentType, patch: Value) -> Result<Arc<K>, ApiError> {
        self.object(self.request(Verb::Patch, Some(name)).body(how, patch)).await
    }

    /// Patches a subresource of an object.
    ///
    /// # Errors
    /// As [`Api::patch`].
    pub async fn patch_subresource(
        &self,
        name: &str,
        subresource: &str,
        how: ContentType,
        patch: Value,
    ) -> Result<Arc<K>, ApiError> {
        self.object(self.request(Verb::Patch, Some(name)).subresource(subresource).body(how, patch)).await
    }

    /// Deletes an object. The object still exists afterwards while finalizers or a grace period hold it.
    ///
    /// # Errors
    /// 404 where there is none, 409 where a precondition does not hold.
    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> Result<(), ApiError> {
        let request = self.request(Verb::Delete, Some(name)).body(ContentType::Json, options.body());
        self.client.send(request).await.map(drop)
    }

    /// Deletes every object that the options' selectors match.
    ///
    /// # Errors
    /// The server's.
    pub async fn delete_collection(&self, delete: &DeleteOptions, options: Options) -> Result<(), ApiError> {
        let mut request = self.request(Verb::DeleteCollection, None).body(ContentType::Json, delete.body());
        request.options = options;
        self.client.send(request).await.map(drop)
    }

    async fn object(&self, request: ApiRequest) -> Result<Arc<K>, ApiError> {
        match self.client.send(request).await?.body {
            ResponseBody::Object(object) => object.decode(),
            ResponseBody::Value(value) => {
                serde_json::from_value(value).map(Arc::new).map_err(ApiError::internal)
            }
            other => Err(ApiError::internal(format!("an object was expected, not {other:?}"))),
        }
    }

    fn encode(&self, object: &K) -> Result<Value, ApiError> {
        let mut value = serde_json::to_value(object).map_err(|e| ApiError::bad_request(e.to_string()))?;
        if let Value::Object(map) = &mut value {
            map.entry("apiVersion").or_insert_with(|| json!(self.resource.api_version()));
            map.entry("kind").or_insert_with(|| json!(self.kind));
        }
        Ok(value)
    }
}

impl DeleteOptions {
    /// Ends at once.
    pub fn now() -> Self {
        DeleteOptions { grace_period_seconds: Some(0), ..Self::default() }
    }

    fn body(&self) -> Value {
        let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if let Some(seconds) = self.grace_period_seconds {
            body["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(policy) = self.propagation_policy {
            body["propagationPolicy"] = json!(policy);
        }
        if self.uid.is_some() || self.resource_version.is_some() {
            body["preconditions"] = json!({});
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = json!(uid);
        }
        if let Some(version) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = json!(version);
        }
        body
    }
}

fn typed<K>(event: WatchEvent) -> Result<Event<K>, ApiError>
where
    K: serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let object: &ApiObject = &event.object;
    Ok(match event.event {
        WatchEventType::Added | WatchEventType::Modified => Event::Applied(object.decode()?),
        WatchEventType::Deleted => Event::Deleted(object.decode()?),
        WatchEventType::Bookmark => Event::Bookmark(object.resource_version()),
    })
}
