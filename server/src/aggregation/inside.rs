//! Requests of this process to another server: written down as HTTP, and their answers understood.

use crate::relay::collected;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kubewright_core::passage::{ByteStream, Passage};
use kubewright_core::{
    ApiError, ApiObject, ApiRequest, ApiResponse, ContentType, ObjectList, Options, Reason, Representation,
    RequestBody, ResponseBody, Target, Verb, WatchEvent, WatchEventType, WatchStream,
};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// The largest answer that is read whole, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The largest event of a watch, in bytes.
const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The request as HTTP has it.
///
/// # Errors
/// 400 for one that HTTP can't carry.
pub(super) fn passage(request: &ApiRequest) -> Result<Passage, ApiError> {
    let method = match request.verb {
        Verb::Get | Verb::List | Verb::Watch => Method::GET,
        Verb::Create => Method::POST,
        Verb::Update => Method::PUT,
        Verb::Patch => Method::PATCH,
        Verb::Delete | Verb::DeleteCollection => Method::DELETE,
    };
    let mut built = Request::builder().method(method).uri(address(request)).header(ACCEPT, accept(request));
    if !request.user_agent.is_empty() {
        built = built.header(USER_AGENT, request.user_agent.as_str());
    }
    let written = match &request.body {
        RequestBody::Empty => None,
        RequestBody::Bytes { content_type, bytes } => Some((*content_type, bytes.clone())),
        RequestBody::Value { content_type, value } => {
            let bytes = serde_json::to_vec(value).map_err(ApiError::internal)?;
            Some((*content_type, Bytes::from(bytes)))
        }
    };
    if let Some((content_type, _)) = &written {
        built = built.header(CONTENT_TYPE, media_type(*content_type));
    }
    let wrong = |e: http::Error| ApiError::bad_request(format!("the request can't be passed on: {e}"));
    let (head, ()) = built.body(()).map_err(wrong)?.into_parts();
    let body = written.map(|(_, bytes)| stream::once(async move { Ok(bytes) }).boxed());
    Ok(Passage::new(head, body, None))
}

fn media_type(content_type: ContentType) -> &'static str {
    match content_type {
        ContentType::Json => "application/json",
        ContentType::Yaml => "application/yaml",
        ContentType::JsonPatch => "application/json-patch+json",
        ContentType::MergePatch => "application/merge-patch+json",
        ContentType::StrategicMergePatch => "application/strategic-merge-patch+json",
        ContentType::ApplyPatch => "application/apply-patch+yaml",
    }
}

fn accept(request: &ApiRequest) -> String {
    let list = if request.verb == Verb::List { "List" } else { "" };
    match request.representation {
        _ if !request.accept.is_empty() => request.accept.to_string(),
        Representation::Object => "application/json".to_owned(),
        Representation::Table => "application/json;as=Table;v=v1;g=meta.k8s.io,application/json".to_owned(),
        Representation::PartialObjectMetadata => {
            format!("application/json;as=PartialObjectMetadata{list};v=v1;g=meta.k8s.io,application/json")
        }
    }
}

fn address(request: &ApiRequest) -> String {
    let (resource, namespace, name, subresource) = match &request.target {
        Target::Path(path) => return path.clone(),
        Target::Resource { resource, namespace, name, subresource } => {
            (resource, namespace, name, subresource)
        }
    };
    let mut path = format!("/apis/{}/{}", resource.group, resource.version);
    let mut step = |text: &str| {
        path.push('/');
        path.extend(percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC));
    };
    if let Some(namespace) = namespace.as_deref().filter(|n| !n.is_empty()) {
        step("namespaces");
        step(namespace);
    }
    step(&resource.resource);
    name.iter().chain(subresource).filter(|s| !s.is_empty()).for_each(|s| step(s));
    let query = query(&request.options, request.verb);
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

fn query(options: &Options, verb: Verb) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let texts = [
        ("labelSelector", options.label_selector.clone()),
        ("fieldSelector", options.field_selector.clone()),
        ("limit", options.limit.map(|n| n.to_string())),
        ("continue", options.continue_token.clone()),
        ("resourceVersion", options.resource_version.clone()),
        ("resourceVersionMatch", options.resource_version_match.clone()),
        ("timeoutSeconds", options.timeout_seconds.map(|n| n.to_string())),
        ("sendInitialEvents", options.send_initial_events.map(|b| b.to_string())),
        ("fieldManager", options.field_manager.clone()),
        ("fieldValidation", options.field_validation.clone()),
        ("force", options.force.map(|b| b.to_string())),
        ("gracePeriodSeconds", options.grace_period_seconds.map(|n| n.to_string())),
        ("propagationPolicy", options.propagation_policy.clone()),
        ("orphanDependents", options.orphan_dependents.map(|b| b.to_string())),
        ("dryRun", options.dry_run.then(|| "All".to_owned())),
        ("allowWatchBookmarks", options.allow_watch_bookmarks.then(|| "true".to_owned())),
        ("watch", (verb == Verb::Watch).then(|| "true".to_owned())),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            query.append_pair(name, &text);
        }
    }
    query.finish()
}

/// The answer as this server's own would be.
///
/// # Errors
/// The other server's error, or 500 for an answer that is none.
pub(super) async fn understood(request: &ApiRequest, answer: ApiResponse) -> Result<ApiResponse, ApiError> {
    let ApiResponse { code, body: ResponseBody::Passed(passed), .. } = answer else { return Ok(answer) };
    if request.verb == Verb::Watch && code < 300 {
        return Ok(ApiResponse::new(code, ResponseBody::Watch(events(passed.body))));
    }
    let bytes = collected(passed.body, ANSWER_BYTES_MAX).await?;
    if code >= 300 {
        return Err(refusal(code, &bytes));
    }
    let plain = request.representation == Representation::Object;
    let body = match (&request.target, request.verb) {
        (Target::Resource { .. }, Verb::List) if plain => ResponseBody::List(list(&bytes)?),
        (Target::Resource { .. }, Verb::Get | Verb::Create | Verb::Update | Verb::Patch) if plain => {
            ResponseBody::Object(Arc::new(ApiObject::from_bytes(bytes)?))
        }
        _ => ResponseBody::Value(serde_json::from_slice(&bytes).map_err(ApiError::internal)?),
    };
    Ok(ApiResponse::new(code, body))
}

fn refusal(code: u16, bytes: &[u8]) -> ApiError {
    let status = serde_json::from_slice::<Status>(bytes).ok();
    if let Some(mut status) = status.filter(|s| s.message.is_some() || s.reason.is_some()) {
        status.code.get_or_insert(i32::from(code));
        return ApiError::from_status(status);
    }
    let text = String::from_utf8_lossy(bytes);
    match code {
        404 => ApiError::no_such_path(),
        503 => ApiError::unavailable(text.trim()),
        _ => ApiError::new(
            Reason::InternalError,
            format!("an API server behind this one answered {code}: {}", text.trim()),
        ),
    }
}

fn list(bytes: &[u8]) -> Result<ObjectList, ApiError> {
    let mut value: Value = serde_json::from_slice(bytes).map_err(ApiError::internal)?;
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let (api_version, kind) = (text(&value["apiVersion"]), text(&value["kind"]));
    let metadata = value["metadata"].take();
    let mut items = Vec::new();
    for mut item in value["items"].as_array_mut().map(std::mem::take).unwrap_or_default() {
        // Items of a list need not say what they are.
        if item.get("kind").is_none_or(Value::is_null) && item.is_object() {
            item["kind"] = kind.strip_suffix("List").unwrap_or(&kind).into();
            item["apiVersion"] = api_version.as_str().into();
        }
        items.push(Arc::new(ApiObject::from_value(&item)?));
    }
    Ok(ObjectList {
        api_version,
        kind,
        resource_version: text(&metadata["resourceVersion"]).parse().unwrap_or(0),
        continue_token: metadata["continue"].as_str().filter(|t| !t.is_empty()).map(str::to_owned),
        remaining: metadata["remainingItemCount"].as_u64(),
        items,
    })
}

/// The events of a watch, out of its lines.
fn events(body: ByteStream) -> WatchStream {
    let state = (body, BytesMut::new(), false);
    let events = stream::unfold(state, |(mut body, mut read, over)| async move {
        if over {
            return None;
        }
        loop {
            if let Some(end) = read.iter().position(|b| *b == b'\n') {
                let line = read.split_to(end + 1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let event = event(&line);
                let over = event.is_err();
                return Some((event, (body, read, over)));
            }
            match body.next().await? {
                Ok(chunk) if read.len() + chunk.len() <= EVENT_BYTES_MAX => read.extend_from_slice(&chunk),
                Ok(_) => return Some((Err(ApiError::internal("an event is too large")), (body, read, true))),
                Err(e) => return Some((Err(e), (body, read, true))),
            }
        }
    });
    events.boxed()
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    event: String,
    #[serde(borrow)]
    object: &'a serde_json::value::RawValue,
}

fn event(line: &[u8]) -> Result<WatchEvent, ApiError> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(ApiError::internal)?;
    let object = line.object.get();
    let event = match line.event.as_str() {
        "ADDED" => WatchEventType::Added,
        "MODIFIED" => WatchEventType::Modified,
        "DELETED" => WatchEventType::Deleted,
        "BOOKMARK" => WatchEventType::Bookmark,
        _ => return Err(refusal(500, object.as_bytes())),
    };
    let object = ApiObject::from_bytes(Bytes::copy_from_slice(object.as_bytes()))?;
    Ok(WatchEvent { event, object: Arc::new(object) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubewright_core::GroupVersionResource;

    #[test]
    fn requests_are_written_down() {
        let things = GroupVersionResource::new("g.example.com", "v1", "things");
        let mut request = ApiRequest::resource(Verb::Watch, things.clone(), Some("n"), None);
        request.options.label_selector = Some("a=b,c".to_owned());
        request.options.resource_version = Some("7".to_owned());
        let want =
            "/apis/g.example.com/v1/namespaces/n/things?labelSelector=a%3Db%2Cc&resourceVersion=7&watch=true";
        assert_eq!(passage(&request).unwrap().head.uri, want);
        let request = ApiRequest::resource(Verb::Patch, things, None, Some("a:b")).subresource("status");
        let request = request.body(ContentType::MergePatch, serde_json::json!({}));
        let head = passage(&request).unwrap().head;
        assert_eq!(head.uri, "/apis/g.example.com/v1/things/a%3Ab/status");
        assert_eq!(
            (head.method, head.headers[CONTENT_TYPE].to_str().unwrap()),
            (Method::PATCH, "application/merge-patch+json")
        );
    }

    #[tokio::test]
    async fn lines_are_events() {
        let chunks: Vec<Result<Bytes, ApiError>> = [
            "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\"}}}\n{\"type\":\"DEL",
            "ETED\",\"object\":{\"metadata\":{\"name\":\"b\"}}}\n\n{\"type\":\"ERROR\",\"object\":{\"code\":410,\"reason\":\"Expired\"}}\n{}",
        ]
        .into_iter()
        .map(|c| Ok(Bytes::from(c)))
        .collect();
        let mut events = events(stream::iter(chunks).boxed());
        let mut shown = Vec::new();
        while let Some(event) = events.next().await {
            shown.push(match event {
                Ok(event) => format!("{} {}", event.event.as_str(), event.object.header().name),
                Err(e) => e.code().to_string(),
            });
        }
        assert_eq!(shown, ["ADDED a", "DELETED b", "410"]);
    }
}
