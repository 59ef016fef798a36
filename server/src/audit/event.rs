//! What is told of a request: an `audit.k8s.io/v1` Event. It holds what was shared anyway and is written out later, by the backends.

use super::policy::{Level, Stage, Verdict};
use bytes::Bytes;
use jiff::Timestamp;
use kubewright_core::{
    ApiError, ApiObject, ApiRequest, ContentType, Origin, RequestBody, ResponseBody, Target, UserInfo, Verb,
};
use serde_json::{Map, Value, json};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A body, as it was sent or answered.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Bytes(ContentType, Bytes),
    Value(Arc<Value>),
    Object(Arc<ApiObject>),
    List(Arc<kubewright_core::ObjectList>),
}

/// What all events of one request say.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) verdict: Verdict,
    origin: Origin,
    verb: SmolStr,
    user: Arc<UserInfo>,
    user_agent: SmolStr,
    target: Target,
    received: Timestamp,
}

/// One event.
#[derive(Debug)]
pub struct Event {
    pub(super) record: Arc<Record>,
    pub(super) stage: Stage,
    pub(super) at: Timestamp,
    pub(super) outcome: Option<Outcome>,
    pub(super) request: Option<Payload>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// How it ended.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) code: u16,
    /// A failure's status.
    pub(super) failure: Option<ApiError>,
    /// The object that a create made, for those who do not see it.
    pub(super) made: Option<(SmolStr, SmolStr)>,
    pub(super) response: Option<Payload>,
}

impl Record {
    pub(super) fn new(request: &ApiRequest, verdict: Verdict, received: Timestamp) -> Self {
        let origin = request.notes.origin().cloned().unwrap_or_default();
        Record {
            verdict,
            verb: crate::auth::Attributes::of(request).verb.into(),
            user: request.user.clone(),
            user_agent: request.user_agent.clone(),
            target: request.target.clone(),
            received,
            origin,
        }
    }
}

impl Payload {
    pub(super) fn of_request(body: &RequestBody) -> Option<Self> {
        match body {
            RequestBody::Empty => None,
            RequestBody::Bytes { content_type, bytes } => Some(Payload::Bytes(*content_type, bytes.clone())),
            RequestBody::Value { value, .. } => Some(Payload::Value(Arc::new(value.clone()))),
        }
    }

    pub(super) fn of_response(body: &ResponseBody) -> Option<Self> {
        match body {
            ResponseBody::Object(object) => Some(Payload::Object(object.clone())),
            ResponseBody::List(list) => Some(Payload::List(Arc::new(list.clone()))),
            ResponseBody::Value(value) => Some(Payload::Value(Arc::new(value.clone()))),
            _ => None,
        }
    }

    /// As JSON; a body that is none becomes a text.
    fn value(&self, omit_managed_fields: bool) -> Value {
        let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes);
        let mut value = match self {
            Payload::Value(value) => Value::clone(value),
            Payload::Object(object) => parsed(object.bytes()).unwrap_or_default(),
            Payload::List(list) => {
                let items = list.items.iter().map(|o| parsed(o.bytes()).unwrap_or_default());
                json!({"apiVersion": list.api_version, "kind": list.kind,
                    "metadata": {"resourceVersion": list.resource_version.to_string()},
                    "items": items.collect::<Vec<_>>()})
            }
            Payload::Bytes(ContentType::Yaml | ContentType::ApplyPatch, bytes) => {
                let text = String::from_utf8_lossy(bytes);
                serde_saphyr::from_str(&text).unwrap_or_else(|_| json!(text))
            }
            Payload::Bytes(_, bytes) => {
                parsed(bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(bytes)))
            }
        };
        if omit_managed_fields {
            without_managed_fields(&mut value);
            let items = value.get_mut("items").and_then(Value::as_array_mut);
            items.into_iter().flatten().for_each(without_managed_fields);
        }
        value
    }
}

fn without_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

fn micro_time(time: Timestamp) -> String {
    format!("{time:.6}")
}

impl Event {
    /// How much it tells.
    pub fn level(&self) -> Level {
        self.record.verdict.level
    }

    /// When it was told.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The event as `audit.k8s.io/v1` has it.
    pub fn to_value(&self) -> Value {
        let record = &*self.record;
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": self.level().as_str(),
            "auditID": record.origin.audit_id,
            "stage": self.stage.as_str(),
            "requestURI": self.uri(),
            "verb": record.verb.as_str(),
            "user": record.origin.sender.as_ref().unwrap_or(&record.user),
            "requestReceivedTimestamp": micro_time(record.received),
            "stageTimestamp": micro_time(self.at),
        });
        if record.origin.sender.is_some() {
            event["impersonatedUser"] = json!(record.user);
        }
        if !record.origin.source_ips.is_empty() {
            event["sourceIPs"] = json!(record.origin.source_ips);
        }
        if !record.user_agent.is_empty() {
            event["userAgent"] = json!(record.user_agent.as_str());
        }
        if let Some(reference) = self.object_ref() {
            event["objectRef"] = reference;
        }
        let omit = record.verdict.omit_managed_fields;
        if let Some(outcome) = &self.outcome {
            event["responseStatus"] = outcome.status();
            if self.level() >= Level::RequestResponse {
                if let Some(response) = &outcome.response {
                    event["responseObject"] = response.value(omit);
                } else if let Some(failure) = &outcome.failure {
                    event["responseObject"] = json!(failure.status());
                }
            }
        }
        if let Some(request) = self.request.as_ref().filter(|_| self.level() >= Level::Request) {
            event["requestObject"] = request.value(omit);
        }
        if !self.annotations.is_empty() {
            event["annotations"] = json!(self.annotations);
        }
        event
    }

    fn uri(&self) -> String {
        let record = &*self.record;
        if !record.origin.uri.is_empty() {
            return record.origin.uri.clone();
        }
        // A caller of the same process has none; this is what it would have asked for.
        match &record.target {
            Target::Path(path) => path.clone(),
            Target::Resource { resource, namespace, name, subresource } => {
                let root = if resource.group.is_empty() { "/api/" } else { "/apis/" };
                let mut uri = format!("{root}{}", resource.api_version());
                if let Some(namespace) = namespace {
                    uri.push_str(&format!("/namespaces/{namespace}"));
                }
                let parts = [Some(resource.resource.as_str()), name.as_deref(), subresource.as_deref()];
                for part in parts.into_iter().flatten() {
                    uri.push('/');
                    uri.push_str(part);
                }
                uri
            }
        }
    }

    fn object_ref(&self) -> Option<Value> {
        let Target::Resource { resource, namespace, name, subresource } = &self.record.target else {
            return None;
        };
        let made = self.outcome.as_ref().and_then(|o| o.made.as_ref());
        let mut reference = Map::new();
        let mut put = |key: &str, text: &str| {
            if !text.is_empty() {
                reference.insert(key.to_owned(), json!(text));
            }
        };
        put("resource", &resource.resource);
        put("namespace", namespace.as_deref().unwrap_or(""));
        put("name", name.as_deref().or(made.map(|(n, _)| n.as_str())).unwrap_or(""));
        put("uid", made.map_or("", |(_, uid)| uid.as_str()));
        put("apiGroup", &resource.group);
        put("apiVersion", &resource.version);
        put("subresource", subresource.as_deref().unwrap_or(""));
        Some(Value::Object(reference))
    }
}

impl Outcome {
    pub(super) fn of(
        answer: &Result<kubewright_core::ApiResponse, ApiError>,
        verb: Verb,
        level: Level,
    ) -> Self {
        match answer {
            Err(e) => Outcome { code: e.code(), failure: Some(e.clone()), made: None, response: None },
            Ok(answer) => {
                let made = match &answer.body {
                    ResponseBody::Object(object) if verb != Verb::Get => {
                        let header = object.header();
                        Some((header.name.clone(), header.uid.clone()))
                    }
                    _ => None,
                };
                let session = matches!(answer.body, ResponseBody::Exec(_) | ResponseBody::PortForward(_));
                let response = (level >= Level::RequestResponse).then(|| Payload::of_response(&answer.body));
                let code = if session { 101 } else { answer.code };
                Outcome { code, failure: None, made, response: response.flatten() }
            }
        }
    }

    fn status(&self) -> Value {
        let mut status = match &self.failure {
            Some(failure) => json!(failure.status()),
            None => json!({}),
        };
        status["metadata"] = json!({});
        status["code"] = json!(self.code);
        status
    }
}
