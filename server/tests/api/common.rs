//! What the black-box tests share: a server on a new store with tiny kinds, and short ways to ask it.

pub(crate) use crate::stores::store;
use futures::StreamExt;
use kubewright_core::resource::{FieldValue, NoRules, Origin, SelectableField};
use kubewright_core::{
    ApiError, ApiObject, ApiRequest, ApiResponse, ContentType, GroupVersionResource, JsonPath,
    KindDescriptor, ObjectList, Options, RequestBody, ResponseBody, Schema, Scope, Target, Verb, WatchEvent,
    WatchStream,
};
use kubewright_server::{ApiServer, ApiServerBuilder};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

/// A kind without rules of its own.
pub(crate) fn kind(group: &str, plural: &str, name: &str, scope: Scope) -> KindDescriptor {
    KindDescriptor {
        group: group.into(),
        version: "v1".into(),
        kind: name.into(),
        list_kind: format!("{name}List").into(),
        plural: plural.into(),
        singular: name.to_lowercase().into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        scope,
        status: true,
        scale: None,
        generation: true,
        schema: Arc::new(Schema::default()),
        strategy: Arc::new(NoRules),
        columns: Vec::new(),
        selectable_fields: Vec::new(),
        origin: Origin::BuiltIn,
        stored_as: None,
        conversion: None,
    }
}

/// `example.dev/v1` widgets, namespaced, with `spec.nodeName` and `spec.color` to select by; and gadgets of the cluster.
pub(crate) fn builder() -> ApiServerBuilder {
    let field = |name: &str| SelectableField {
        name: name.into(),
        value: FieldValue::Path(JsonPath::parse(&format!(".{name}")).unwrap()),
    };
    let mut widgets = kind("example.dev", "widgets", "Widget", Scope::Namespaced);
    widgets.selectable_fields = vec![field("spec.nodeName"), field("spec.color")];
    ApiServer::builder(store()).without_builtin_admission().kind(widgets).kind(kind(
        "example.dev",
        "gadgets",
        "Gadget",
        Scope::Cluster,
    ))
}

/// A plane with the shortest ways to ask it.
#[derive(Clone)]
pub(crate) struct Plane(pub(crate) ApiServer);

pub(crate) async fn plane() -> Plane {
    Plane(builder().build().await.unwrap())
}

pub(crate) fn widgets() -> GroupVersionResource {
    GroupVersionResource::new("example.dev", "v1", "widgets")
}

pub(crate) fn gadgets() -> GroupVersionResource {
    GroupVersionResource::new("example.dev", "v1", "gadgets")
}

pub(crate) fn widget(name: &str) -> Value {
    json!({"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"color": "red"}})
}

/// A request for widgets of the namespace `n`.
pub(crate) fn request(verb: Verb, name: Option<&str>) -> ApiRequest {
    ApiRequest::resource(verb, widgets(), Some("n"), name)
}

impl Plane {
    pub(crate) async fn send(&self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        self.0.clone().oneshot(request).await
    }

    pub(crate) async fn value(&self, request: ApiRequest) -> Result<Value, ApiError> {
        let response = self.send(request).await?;
        Ok(match response.body {
            ResponseBody::Object(object) => object.value().unwrap(),
            ResponseBody::Value(value) => value,
            ResponseBody::Raw { bytes, .. } => serde_json::from_slice(&bytes).unwrap(),
            other => panic!("no document: {other:?}"),
        })
    }

    pub(crate) async fn create(&self, object: Value) -> Result<Value, ApiError> {
        self.value(request(Verb::Create, None).body(ContentType::Json, object)).await
    }

    pub(crate) async fn update(&self, object: Value) -> Result<Value, ApiError> {
        let name = object["metadata"]["name"].as_str().unwrap_or("").to_owned();
        self.value(request(Verb::Update, Some(&name)).body(ContentType::Json, object)).await
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Value, ApiError> {
        self.value(request(Verb::Get, Some(name))).await
    }

    pub(crate) async fn patch(&self, name: &str, how: ContentType, patch: Value) -> Result<Value, ApiError> {
        self.value(request(Verb::Patch, Some(name)).body(how, patch)).await
    }

    pub(crate) async fn delete(&self, name: &str, options: Value) -> Result<Value, ApiError> {
        self.value(request(Verb::Delete, Some(name)).body(ContentType::Json, options)).await
    }

    pub(crate) async fn list(&self, options: Options) -> Result<ObjectList, ApiError> {
        let mut request = request(Verb::List, None);
        request.options = options;
        match self.send(request).await?.body {
            ResponseBody::List(list) => Ok(list),
            other => panic!("no list: {other:?}"),
        }
    }

    pub(crate) async fn watch(&self, options: Options) -> Result<Watched, ApiError> {
        let mut request = request(Verb::Watch, None);
        request.options = options;
        match self.send(request).await?.body {
            ResponseBody::Watch(stream) => Ok(Watched(stream)),
            other => panic!("no watch: {other:?}"),
        }
    }

    pub(crate) async fn path(&self, path: &str) -> Result<ApiResponse, ApiError> {
        self.send(ApiRequest::new(Verb::Get, Target::Path(path.to_owned()))).await
    }
}

/// A running watch.
pub(crate) struct Watched(pub(crate) WatchStream);

impl Watched {
    /// The next event, `TYPE name`.
    pub(crate) async fn next(&mut self) -> String {
        shown(&self.event().await)
    }

    pub(crate) async fn event(&mut self) -> WatchEvent {
        let next = tokio::time::timeout(Duration::from_secs(5), self.0.next()).await;
        next.expect("an event within five seconds").expect("an open stream").expect("no error")
    }

    /// How the stream goes on: an event, an error, or its end.
    pub(crate) async fn any(&mut self) -> Option<Result<WatchEvent, ApiError>> {
        tokio::time::timeout(Duration::from_secs(5), self.0.next()).await.expect("within five seconds")
    }
}

pub(crate) fn shown(event: &WatchEvent) -> String {
    format!("{} {}", event.event.as_str(), event.object.header().name)
}

pub(crate) fn names(list: &ObjectList) -> Vec<&str> {
    list.items.iter().map(|o: &Arc<ApiObject>| o.header().name.as_str()).collect()
}

pub(crate) fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// A body of raw bytes.
pub(crate) fn raw(mut request: ApiRequest, content_type: ContentType, bytes: &[u8]) -> ApiRequest {
    request.body = RequestBody::Bytes { content_type, bytes: bytes::Bytes::copy_from_slice(bytes) };
    request
}
