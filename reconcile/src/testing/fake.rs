//! An API server in memory, for tests of controllers only: no schema, no validation, no authorization.
//!
//! It keeps what controllers rely on: one revision counter, conflicts on `resourceVersion`, watches without gap or repeat, 410 for a
//! lost history, finalizers, deletion preconditions and propagation policies, generations, and the status subresource.

use crate::ObjectKey;
use futures::StreamExt;
use futures::future::BoxFuture;
use kubewright_client::{Client, Transport, system_user};
use kubewright_core::{
    ApiError, ApiObject, ApiRequest, ApiResponse, Clock, ContentType, Entropy, GroupVersionResource,
    ManualClock, ObjectList, Options, RequestBody, ResponseBody, SharedClock, Target, Verb, WatchEvent,
    WatchEventType, WatchStream,
};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

type Key = (GroupVersionResource, ObjectKey);

/// A change as the watches replay it.
#[derive(Clone)]
struct Entry {
    revision: u64,
    resource: GroupVersionResource,
    before: Option<Arc<ApiObject>>,
    /// The object afterwards; for a deletion its last state, under the revision of the deletion.
    after: Arc<ApiObject>,
    deleted: bool,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<Key, Arc<ApiObject>>,
    log: VecDeque<Entry>,
    /// Watches from before this revision get 410.
    compacted: u64,
    failures: VecDeque<ApiError>,
    refusals: BTreeMap<GroupVersionResource, ApiError>,
    watch_delay: Duration,
    kinds: Vec<(GroupVersionResource, String, bool)>,
    requests: u64,
    writes: u64,
}

/// The server. Cloning shares it.
#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    revision: Arc<watch::Sender<u64>>,
    clock: SharedClock,
    entropy: Arc<Entropy>,
}

impl std::fmt::Debug for FakeApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FakeApi(at {})", self.state.lock().revision)
    }
}

impl Default for FakeApi {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeApi {
    /// An empty server whose clock stands at 2026-01-01.
    pub fn new() -> Self {
        let start = jiff::Timestamp::from_second(1_767_225_600).unwrap_or_default();
        Self::with_clock(Arc::new(ManualClock::new(start)))
    }

    /// An empty server with this clock.
    pub fn with_clock(clock: SharedClock) -> Self {
        FakeApi {
            state: Arc::default(),
            revision: Arc::new(watch::Sender::new(0)),
            clock,
            entropy: Arc::new(Entropy::from_seed(1)),
        }
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(self.clone(), system_user("admin", &["system:masters"]))
    }

    /// The clock of its timestamps.
    pub fn clock(&self) -> SharedClock {
        self.clock.clone()
    }

    /// Lets discovery name a resource; requests work without.
    pub fn serve(&self, resource: GroupVersionResource, kind: &str, namespaced: bool) {
        self.state.lock().kinds.push((resource, kind.to_owned(), namespaced));
    }

    /// The next requests that are no watches fail with these errors.
    pub fn fail_with(&self, errors: impl IntoIterator<Item = ApiError>) {
        self.state.lock().failures.extend(errors);
    }

    /// Every create of this resource fails with this error, until called with `None`.
    pub fn refuse_creates(&self, resource: &GroupVersionResource, error: Option<ApiError>) {
        let mut state = self.state.lock();
        match error {
            Some(error) => drop(state.refusals.insert(resource.clone(), error)),
            None => drop(state.refusals.remove(resource)),
        }
    }

    /// Watches give their events this much later.
    pub fn delay_watches(&self, by: Duration) {
        self.state.lock().watch_delay = by;
    }

    /// Forgets the history: watches that are not up to date end with 410.
    pub fn compact(&self) {
        let mut state = self.state.lock();
        state.revision += 1;
        state.compacted = state.revision;
        state.log.clear();
        self.revision.send_replace(state.revision);
    }

    /// How many requests changed something.
    pub fn writes(&self) -> u64 {
        self.state.lock().writes
    }

    /// How many requests came in.
    pub fn requests(&self) -> u64 {
        self.state.lock().requests
    }

    /// How many objects a resource has.
    pub fn count(&self, resource: &GroupVersionResource) -> usize {
        let state = self.state.lock();
        state.objects.keys().filter(|(r, _)| r == resource).count()
    }

    fn handle(&self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        let Target::Resource { resource, namespace, name, subresource } = request.target else {
            let Target::Path(path) = request.target else { return Err(ApiError::no_such_path()) };
            return self.discovery(&path);
        };
        let mut state = self.state.lock();
        state.requests += 1;
        if request.verb != Verb::Watch
            && let Some(error) = state.failures.pop_front()
        {
            return Err(error);
        }
        let namespace = namespace.unwrap_or_default();
        let key = (resource.clone(), ObjectKey::new(&namespace, name.as_deref().unwrap_or("")));
        let sub = subresource.as_deref();
        let object = match request.verb {
            Verb::Get => state.get(&key)?,
            Verb::List => {
                return Ok(ApiResponse::new(200, state.list(&resource, &namespace, &request.options)?));
            }
            Verb::Watch => {
                drop(state);
                let stream = self.watch(resource, namespace, request.options)?;
                return Ok(ApiResponse::new(200, ResponseBody::Watch(stream)));
            }
            Verb::Create if sub == Some("binding") => self.bind(&mut state, &key, body(request.body)?.1)?,
            Verb::Create => self.create(&mut state, resource, &namespace, body(request.body)?.1)?,
            Verb::Update => {
                let (_, value) = body(request.body)?;
                self.update(&mut state, &key, sub, value)?
            }
            Verb::Patch => {
                let (how, patch) = body(request.body)?;
                let mut value = state.get(&key)?.value()?;
                match how {
                    ContentType::MergePatch => merge(&mut value, patch),
                    ContentType::StrategicMergePatch => {
                        kubewright_core::patch::strategic_merge(&mut value, &patch, &*schema_of(&resource)?)?;
                    }
                    _ => {
                        return Err(ApiError::not_implemented(
                            "patches of the fake other than merge patches",
                        ));
                    }
                }
                self.update(&mut state, &key, sub, value)?
            }
            Verb::Delete => {
                let options = body(request.body).map(|(_, v)| v).unwrap_or_default();
                self.delete(&mut state, &key, &options)?
            }
            Verb::DeleteCollection => {
                let all = state.select(&resource, &namespace, &request.options)?;
                for object in all {
                    let key = (resource.clone(), ObjectKey::of_object(&object));
                    self.delete(&mut state, &key, &Value::Null)?;
                }
                return Ok(ApiResponse::new(200, ResponseBody::Value(json!({"kind": "Status"}))));
            }
        };
        let revision = state.revision;
        drop(state);
        if *self.revision.borrow() < revision {
            self.revision.send_if_modified(|r| std::mem::replace(r, revision.max(*r)) < revision);
        }
        Ok(ApiResponse::new(
            if request.verb == Verb::Create { 201 } else { 200 },
            ResponseBody::Object(object),
        ))
    }

    fn create(
        &self,
        state: &mut State,
        resource: GroupVersionResource,
        namespace: &str,
        mut value: Value,
    ) -> Result<Arc<ApiObject>, ApiError> {
        if let Some(error) = state.refusals.get(&resource) {
            return Err(error.clone());
        }
        let meta = metadata(&mut value)?;
        if !namespace.is_empty() {
            meta.insert("namespace".into(), json!(namespace));
        }
        if meta.get("name").and_then(Value::as_str).unwrap_or("").is_empty() {
            let prefix = meta.get("generateName").and_then(Value::as_str).unwrap_or("");
            if prefix.is_empty() {
                return Err(ApiError::new(
                    kubewright_core::Reason::Invalid,
                    "name or generateName is required",
                ));
            }
            let name = format!("{prefix}{}", self.entropy.suffix(5));
            meta.insert("name".into(), json!(name));
        }
        let name = meta["name"].as_str().unwrap_or("").to_owned();
        meta.insert("uid".into(), json!(self.entropy.uid()));
        meta.insert("creationTimestamp".into(), json!(self.now()));
        meta.insert("generation".into(), json!(1));
        meta.remove("deletionTimestamp");
        let key = (resource, ObjectKey::new(namespace, &name));
        if state.objects.contains_key(&key) {
            return Err(ApiError::already_exists(&key.0.group, &key.0.resource, &name));
        }
        if key.0.resource == "namespaces" {
            value["spec"]["finalizers"] = json!(["kubernetes"]);
            value["status"]["phase"] = json!("Active");
        }
        state.put(key, value)
    }

    fn update(
        &self,
        state: &mut State,
        key: &Key,
        subresource: Option<&str>,
        mut value: Value,
    ) -> Result<Arc<ApiObject>, ApiError> {
        let present = state.get(key)?;
        let mut old = present.value()?;
        let version = value["metadata"]["resourceVersion"].as_str().unwrap_or("");
        if !version.is_empty() && version != present.resource_version().to_string() {
            return Err(ApiError::stale(&key.0.group, &key.0.resource, &key.1.name));
        }
        if let Some(uid) = value["metadata"]["uid"].as_str()
            && uid != present.header().uid
        {
            return Err(ApiError::conflict(&key.0.group, &key.0.resource, &key.1.name, "the UID differs"));
        }
        for field in ["uid", "creationTimestamp", "generation", "deletionTimestamp", "namespace", "name"] {
            let kept = old["metadata"][field].take();
            let meta = metadata(&mut value)?;
            match kept {
                Value::Null => meta.remove(field),
                kept => meta.insert(field.into(), kept),
            };
        }
        let mut old = present.value()?;
        if subresource == Some("status") {
            old["status"] = value["status"].take();
            value = old.clone();
            old = present.value()?;
        } else if subresource.is_none() && old.get("status").is_some() {
            value["status"] = old["status"].clone();
        }
        let spec_changed = value["spec"] != old["spec"];
        value["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if value == old {
            return Ok(present);
        }
        if spec_changed && subresource.is_none() {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            value["metadata"]["generation"] = json!(generation);
        }
        if !value["metadata"]["deletionTimestamp"].is_null() && !held(&key.0, &value) {
            return state.remove(key, value);
        }
        state.put(key.clone(), value)
    }

    fn bind(&self, state: &mut State, key: &Key, binding: Value) -> Result<Arc<ApiObject>, ApiError> {
        let mut value = state.get(key)?.value()?;
        value["spec"]["nodeName"] = binding["target"]["name"].clone();
        state.put(key.clone(), value)
    }

    fn delete(&self, state: &mut State, key: &Key, options: &Value) -> Result<Arc<ApiObject>, ApiError> {
        let present = state.get(key)?;
        let want = &options["preconditions"];
        let other_uid = want["uid"].as_str().is_some_and(|uid| uid != present.header().uid);
        let version = present.resource_version().to_string();
        if other_uid || want["resourceVersion"].as_str().is_some_and(|v| v != version) {
            let why = "the precondition does not hold";
            return Err(ApiError::conflict(&key.0.group, &key.0.resource, &key.1.name, why));
        }
        let mut value = present.value()?;
        let finalizer = match options["propagationPolicy"].as_str() {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        if let Some(finalizer) = finalizer {
            let meta = metadata(&mut value)?;
            let list = meta.entry("finalizers").or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut()
                && !list.iter().any(|f| f == finalizer)
            {
                list.push(json!(finalizer));
            }
        }
        if !held(&key.0, &value) {
            return state.remove(key, value);
        }
        if value["metadata"]["deletionTimestamp"].is_null() {
            value["metadata"]["deletionTimestamp"] = json!(self.now());
            if key.0.resource == "namespaces" {
                value["status"]["phase"] = json!("Terminating");
            }
        }
        if value == present.value()? {
            return Ok(present);
        }
        state.put(key.clone(), value)
    }

    fn now(&self) -> String {
        Clock::now(&*self.clock).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    fn watch(
        &self,
        resource: GroupVersionResource,
        namespace: String,
        options: Options,
    ) -> Result<WatchStream, ApiError> {
        if options.send_initial_events == Some(true) {
            return self.watch_all(resource, namespace, options);
        }
        let from: u64 = options.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
        let selection = Arc::new(Wanted::new(resource, namespace, &options)?);
        if from < self.state.lock().compacted {
            return Err(ApiError::expired("too old resource version"));
        }
        let (state, receiver) = (self.state.clone(), self.revision.subscribe());
        let start = (state, receiver, from, false);
        let batches = futures::stream::unfold(start, move |(state, mut receiver, from, ended)| {
            let selection = selection.clone();
            async move {
                if ended {
                    return None;
                }
                let (events, next, delay) = loop {
                    receiver.borrow_and_update();
                    let found = state.lock().since(from, &selection);
                    match found {
                        Ok((events, next, delay)) if !events.is_empty() => break (events, next, delay),
                        Ok(_) => {}
                        Err(e) => return Some((vec![Err(e)], (state, receiver, from, true))),
                    }
                    receiver.changed().await.ok()?;
                };
                tokio::time::sleep(delay).await;
                Some((events.into_iter().map(Ok).collect::<Vec<_>>(), (state, receiver, next, false)))
            }
        });
        Ok(batches.flat_map(futures::stream::iter).boxed())
    }

    /// A watch that begins with the present objects and marks where they end.
    fn watch_all(
        &self,
        resource: GroupVersionResource,
        namespace: String,
        options: Options,
    ) -> Result<WatchStream, ApiError> {
        let (objects, revision) = {
            let state = self.state.lock();
            (state.select(&resource, &namespace, &options)?, state.revision)
        };
        let mark = json!({"metadata": {"resourceVersion": revision.to_string(),
            "annotations": {"k8s.io/initial-events-end": "true"}}});
        let mark =
            WatchEvent { event: WatchEventType::Bookmark, object: Arc::new(ApiObject::from_value(&mark)?) };
        let added = |object| Ok(WatchEvent { event: WatchEventType::Added, object });
        let first: Vec<_> = objects.into_iter().map(added).chain([Ok(mark)]).collect();
        let resource_version = Some(revision.to_string());
        let rest = Options { send_initial_events: None, resource_version, ..options };
        Ok(futures::stream::iter(first).chain(self.watch(resource, namespace, rest)?).boxed())
    }

    fn discovery(&self, path: &str) -> Result<ApiResponse, ApiError> {
        let kinds = self.state.lock().kinds.clone();
        let document = super::discovery::document(path, &kinds)?;
        Ok(ApiResponse::new(200, ResponseBody::Value(document)))
    }
}

impl Transport for FakeApi {
    fn send(&self, request: ApiRequest) -> BoxFuture<'static, Result<ApiResponse, ApiError>> {
        let server = self.clone();
        Box::pin(async move { server.handle(request) })
    }
}

impl State {
    fn get(&self, key: &Key) -> Result<Arc<ApiObject>, ApiError> {
        let missing = || ApiError::not_found(&key.0.group, &key.0.resource, &key.1.name);
        self.objects.get(key).cloned().ok_or_else(missing)
    }

    fn select(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        options: &Options,
    ) -> Result<Vec<Arc<ApiObject>>, ApiError> {
        let wanted = Wanted::new(resource.clone(), namespace.to_owned(), options)?;
        let first = (resource.clone(), ObjectKey::new(namespace, ""));
        let range = self.objects.range((Bound::Included(first), Bound::Unbounded));
        let of_resource = range.take_while(|((r, _), _)| r == resource);
        Ok(of_resource.filter(|(_, o)| wanted.matches(o)).map(|(_, o)| o.clone()).collect())
    }

    fn list(
        &self,
        resource: &GroupVersionResource,
        namespace: &str,
        options: &Options,
    ) -> Result<ResponseBody, ApiError> {
        Ok(ResponseBody::List(ObjectList {
            api_version: resource.api_version(),
            kind: "List".to_owned(),
            resource_version: self.revision,
            continue_token: None,
            remaining: None,
            items: self.select(resource, namespace, options)?,
        }))
    }

    fn stamp(&mut self, mut value: Value) -> Result<Arc<ApiObject>, ApiError> {
        self.revision += 1;
        self.writes += 1;
        value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        ApiObject::from_value(&value).map(Arc::new)
    }

    fn put(&mut self, key: Key, value: Value) -> Result<Arc<ApiObject>, ApiError> {
        let after = self.stamp(value)?;
        let before = self.objects.insert(key.clone(), after.clone());
        self.record(key.0, before, after.clone(), false);
        Ok(after)
    }

    fn remove(&mut self, key: &Key, value: Value) -> Result<Arc<ApiObject>, ApiError> {
        let last = self.stamp(value)?;
        let before = self.objects.remove(key);
        self.record(key.0.clone(), before, last.clone(), true);
        Ok(last)
    }

    fn record(
        &mut self,
        resource: GroupVersionResource,
        before: Option<Arc<ApiObject>>,
        after: Arc<ApiObject>,
        deleted: bool,
    ) {
        self.log.push_back(Entry { revision: self.revision, resource, before, after, deleted });
        if self.log.len() > 200_000
            && let Some(entry) = self.log.pop_front()
        {
            self.compacted = entry.revision;
        }
    }

    fn since(&self, from: u64, wanted: &Wanted) -> Result<(Vec<WatchEvent>, u64, Duration), ApiError> {
        if from < self.compacted {
            return Err(ApiError::expired("too old resource version"));
        }
        let first = self.log.partition_point(|e| e.revision <= from);
        let events: Vec<_> = self.log.range(first..).filter_map(|e| wanted.event(e)).collect();
        Ok((events, self.revision, self.watch_delay))
    }
}

/// What a list or watch selects.
struct Wanted {
    resource: GroupVersionResource,
    namespace: String,
    labels: Vec<(String, String)>,
    fields: Vec<(String, String)>,
}

impl Wanted {
    fn new(resource: GroupVersionResource, namespace: String, options: &Options) -> Result<Self, ApiError> {
        let labels = equalities(options.label_selector.as_deref())?;
        let fields = equalities(options.field_selector.as_deref())?;
        Ok(Wanted { resource, namespace, labels, fields })
    }

    fn matches(&self, object: &ApiObject) -> bool {
        let header = object.header();
        let here = self.namespace.is_empty() || header.namespace == self.namespace;
        let labelled = self.labels.iter().all(|(k, v)| header.labels.get(k.as_str()).is_some_and(|l| l == v));
        here && labelled && (self.fields.is_empty() || self.fields_match(object))
    }

    fn fields_match(&self, object: &ApiObject) -> bool {
        let value = object.value().unwrap_or_default();
        self.fields.iter().all(|(path, want)| {
            let found = path.split('.').fold(&value, |v, part| &v[part]);
            found.as_str().unwrap_or("") == want
        })
    }

    fn event(&self, entry: &Entry) -> Option<WatchEvent> {
        if entry.resource != self.resource {
            return None;
        }
        let before = entry.before.as_ref().is_some_and(|o| self.matches(o));
        let after = !entry.deleted && self.matches(&entry.after);
        let event = match (before, after) {
            (false, true) => WatchEventType::Added,
            (true, true) => WatchEventType::Modified,
            (true, false) => WatchEventType::Deleted,
            (false, false) => return None,
        };
        Some(WatchEvent { event, object: entry.after.clone() })
    }
}

fn equalities(selector: Option<&str>) -> Result<Vec<(String, String)>, ApiError> {
    let parts = selector.unwrap_or("").split(',').filter(|p| !p.is_empty());
    parts
        .map(|part| {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| ApiError::not_implemented("selectors of the fake other than equalities"))?;
            Ok((key.to_owned(), value.trim_start_matches('=').to_owned()))
        })
        .collect()
}

/// The schema of a built-in kind, whose list keys a strategic merge needs; the kinds are described once.
fn schema_of(resource: &GroupVersionResource) -> Result<Arc<kubewright_core::schema::Schema>, ApiError> {
    use kubewright_core::api::{BuiltinOptions, builtin};
    static KINDS: std::sync::OnceLock<Vec<kubewright_core::KindDescriptor>> = std::sync::OnceLock::new();
    let kinds = KINDS.get_or_init(|| builtin(&BuiltinOptions::default()));
    let found = kinds.iter().find(|kind| kind.resource() == *resource);
    found.map(|kind| kind.schema.clone()).ok_or_else(|| {
        ApiError::new(
            kubewright_core::Reason::UnsupportedMediaType,
            "only built-in kinds have strategic merge patches",
        )
    })
}

/// Whether a deleted object has to stay.
fn held(resource: &GroupVersionResource, value: &Value) -> bool {
    let some = |list: &Value| list.as_array().is_some_and(|l| !l.is_empty());
    some(&value["metadata"]["finalizers"])
        || (resource.resource == "namespaces" && some(&value["spec"]["finalizers"]))
}

fn metadata(value: &mut Value) -> Result<&mut Map<String, Value>, ApiError> {
    let object = value.as_object_mut().ok_or_else(|| ApiError::bad_request("the body is no object"))?;
    let meta = object.entry("metadata").or_insert_with(|| json!({}));
    meta.as_object_mut().ok_or_else(|| ApiError::bad_request("metadata is no object"))
}

fn body(body: RequestBody) -> Result<(ContentType, Value), ApiError> {
    match body {
        RequestBody::Value { content_type, value } => Ok((content_type, value)),
        RequestBody::Bytes { content_type, bytes } => serde_json::from_slice(&bytes)
            .map(|value| (content_type, value))
            .map_err(|e| ApiError::bad_request(e.to_string())),
        RequestBody::Empty => Err(ApiError::bad_request("the body is missing")),
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}
