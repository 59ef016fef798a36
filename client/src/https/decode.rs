//! From an HTTP response to an [`ApiResponse`].

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kubewright_core::{
    ApiError, ApiObject, ApiRequest, ApiResponse, ObjectList, Reason, Representation, ResponseBody, Target,
    Verb, WatchEvent, WatchEventType,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;

/// The longest answer that is read; a list of 150,000 pods has about 400 MB.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// The longest event of a watch; an object has 3 MiB at most.
const EVENT_BYTES_MAX: usize = 16 << 20;
const FAILURE_BYTES_MAX: usize = 1 << 20;

/// Reads an answer that is no stream.
///
/// # Errors
/// The server's own, or 500 for an answer that makes no sense.
pub(super) async fn response(
    response: Response<Incoming>,
    request: &ApiRequest,
) -> Result<ApiResponse, ApiError> {
    if !response.status().is_success() {
        return Err(failure(response).await);
    }
    let (parts, body) = response.into_parts();
    let bytes = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let bytes = bytes.map_err(|e| ApiError::unavailable(format!("the answer broke off: {e}")))?.to_bytes();
    let media = parts.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let mut answer = ApiResponse::new(parts.status.as_u16(), content(&bytes, media, request)?);
    answer.warnings = warnings(&parts.headers);
    Ok(answer)
}

fn content(bytes: &Bytes, media: &str, request: &ApiRequest) -> Result<ResponseBody, ApiError> {
    if !media.starts_with("application/json") {
        let content_type =
            if media.starts_with("text/plain") { "text/plain" } else { "application/octet-stream" };
        return Ok(ResponseBody::Raw { content_type, bytes: bytes.clone() });
    }
    let resource = matches!(request.target, Target::Resource { .. });
    if resource && request.representation == Representation::Object {
        match request.verb {
            Verb::List => return list(bytes).map(ResponseBody::List),
            Verb::Get | Verb::Create | Verb::Update | Verb::Patch | Verb::Delete => {
                let stored = ApiObject::from_bytes(bytes.clone())?;
                // Reviews and statuses are documents, not objects with a version.
                if stored.resource_version() > 0 {
                    return Ok(ResponseBody::Object(Arc::new(stored)));
                }
            }
            Verb::Watch | Verb::DeleteCollection => {}
        }
    }
    Ok(ResponseBody::Value(unreadable(serde_json::from_slice(bytes))?))
}

fn unreadable<T>(result: Result<T, serde_json::Error>) -> Result<T, ApiError> {
    result.map_err(|e| ApiError::internal(format!("the server's answer is not readable: {e}")))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawList<'a> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: Option<String>,
    remaining_item_count: Option<u64>,
}

fn list(bytes: &Bytes) -> Result<ObjectList, ApiError> {
    let raw: RawList<'_> = unreadable(serde_json::from_slice(bytes))?;
    let kind = raw.kind.strip_suffix("List").unwrap_or(&raw.kind);
    let item = |item: &&RawValue| {
        let own = bytes.slice_ref(item.get().as_bytes());
        ApiObject::from_bytes(named(own, &raw.api_version, kind)).map(Arc::new)
    };
    let items = raw.items.iter().flatten().map(item).collect::<Result<_, _>>()?;
    Ok(ObjectList {
        resource_version: raw.metadata.resource_version.parse().unwrap_or(0),
        continue_token: raw.metadata.continue_token.filter(|t| !t.is_empty()),
        remaining: raw.metadata.remaining_item_count,
        api_version: raw.api_version,
        kind: raw.kind,
        items,
    })
}

/// An item with its kind: Go servers leave it out within lists.
fn named(item: Bytes, api_version: &str, kind: &str) -> Bytes {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        kind: Option<&'a RawValue>,
    }
    let has_kind = serde_json::from_slice::<Named<'_>>(&item).is_ok_and(|n| n.kind.is_some());
    if has_kind || kind.is_empty() || item.len() < 2 {
        return item;
    }
    let head = serde_json::json!({"apiVersion": api_version, "kind": kind}).to_string();
    let mut out = BytesMut::with_capacity(item.len() + head.len() + 1);
    out.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
    let rest = item[1..].trim_ascii_start();
    if rest.first() != Some(&b'}') {
        out.extend_from_slice(b",");
    }
    out.extend_from_slice(rest);
    out.freeze()
}

/// The texts of the `Warning` headers.
fn warnings(headers: &HeaderMap) -> Vec<String> {
    let texts = headers.get_all("warning").iter().filter_map(|v| std::str::from_utf8(v.as_bytes()).ok());
    texts.filter_map(warning).collect()
}

/// `299 - "text"` with its escapes.
fn warning(value: &str) -> Option<String> {
    let quoted = value.split_once('"')?.1;
    let (mut text, mut chars) = (String::new(), quoted.chars());
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => text.push(chars.next()?),
            c => text.push(c),
        }
    }
}

/// An answer that is no success, as the `Status` that it carries or that its code stands for.
pub(super) async fn failure(response: Response<Incoming>) -> ApiError {
    let code = response.status().as_u16();
    let bytes = Limited::new(response.into_body(), FAILURE_BYTES_MAX).collect().await;
    let bytes = bytes.map(|b| b.to_bytes()).unwrap_or_default();
    match serde_json::from_slice::<Status>(&bytes) {
        Ok(mut status) if status.status.as_deref() == Some("Failure") => {
            status.code.get_or_insert(i32::from(code));
            ApiError::from_status(status)
        }
        _ => plain_failure(code, String::from_utf8_lossy(&bytes).trim()),
    }
}

fn plain_failure(code: u16, text: &str) -> ApiError {
    let reason = match code {
        400 => Reason::BadRequest,
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        406 => Reason::NotAcceptable,
        409 => Reason::Conflict,
        410 => Reason::Gone,
        413 => Reason::RequestEntityTooLarge,
        415 => Reason::UnsupportedMediaType,
        429 => Reason::TooManyRequests,
        503 => Reason::ServiceUnavailable,
        504 => Reason::Timeout,
        _ => Reason::InternalError,
    };
    let status = Status {
        code: Some(i32::from(code)),
        message: Some(if text.is_empty() { format!("the server answered {code}") } else { text.to_owned() }),
        reason: Some(reason.as_str().to_owned()),
        status: Some("Failure".to_owned()),
        ..Status::default()
    };
    ApiError::from_status(status)
}

/// An answer that goes on: a watch or a log.
pub(super) fn stream(response: Response<Incoming>, verb: Verb) -> ApiResponse {
    let code = response.status().as_u16();
    let warnings = warnings(response.headers());
    let chunks = response.into_body().into_data_stream();
    let chunks = chunks.map(|c| c.map_err(|e| ApiError::unavailable(format!("the stream broke off: {e}"))));
    let body = if verb == Verb::Watch {
        ResponseBody::Watch(events(chunks.boxed()))
    } else {
        ResponseBody::Text(chunks.boxed())
    };
    let mut answer = ApiResponse::new(code, body);
    answer.warnings = warnings;
    answer
}

type Chunks = BoxStream<'static, Result<Bytes, ApiError>>;

/// The lines of a watch as events; an error is the last.
fn events(chunks: Chunks) -> BoxStream<'static, Result<WatchEvent, ApiError>> {
    let state = (Some(chunks), BytesMut::new(), 0usize);
    stream::unfold(state, |(mut chunks, mut buffer, mut searched)| async move {
        loop {
            let source = chunks.as_mut()?;
            if let Some(at) = buffer[searched..].iter().position(|b| *b == b'\n') {
                let line = buffer.split_to(searched + at + 1).freeze();
                searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let event = event(&line);
                let next = if event.is_err() { None } else { chunks };
                return Some((event, (next, buffer, 0)));
            }
            searched = buffer.len();
            match source.next().await {
                Some(Ok(_)) if buffer.len() > EVENT_BYTES_MAX => {
                    let e = ApiError::internal("an event of the watch is too long");
                    return Some((Err(e), (None, buffer, 0)));
                }
                Some(Ok(chunk)) => buffer.extend_from_slice(&chunk),
                Some(Err(e)) => return Some((Err(e), (None, buffer, 0))),
                None => return None,
            }
        }
    })
    .boxed()
}

fn event(line: &Bytes) -> Result<WatchEvent, ApiError> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        r#type: String,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let raw: Raw<'_> = unreadable(serde_json::from_slice(line))?;
    let event = match raw.r#type.as_str() {
        "ADDED" => WatchEventType::Added,
        "MODIFIED" => WatchEventType::Modified,
        "DELETED" => WatchEventType::Deleted,
        "BOOKMARK" => WatchEventType::Bookmark,
        "ERROR" => {
            let status: Status = unreadable(serde_json::from_str(raw.object.get()))?;
            return Err(ApiError::from_status(status));
        }
        other => return Err(ApiError::internal(format!("a watch event of type {other:?}"))),
    };
    let object = ApiObject::from_bytes(line.slice_ref(raw.object.get().as_bytes()))?;
    Ok(WatchEvent { event, object: Arc::new(object) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn value(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn items_get_their_kind() {
        let check = |item: &'static str, want: Value| {
            let got = named(Bytes::from_static(item.as_bytes()), "v1", "Pod");
            assert_eq!(value(&got), want);
        };
        use serde_json::json;
        check("{}", json!({"apiVersion": "v1", "kind": "Pod"}));
        check("{ \"a\": 1}", json!({"apiVersion": "v1", "kind": "Pod", "a": 1}));
        check("{\"kind\": \"X\"}", json!({"kind": "X"}));
        let text = br#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"c"},"items":[{"metadata":{"name":"a"}}]}"#;
        let list = list(&Bytes::from_static(text)).unwrap();
        assert_eq!((list.resource_version, list.continue_token.as_deref()), (7, Some("c")));
        assert_eq!(list.items[0].value().unwrap()["kind"], "Pod");
    }

    #[test]
    fn warnings_are_unquoted() {
        assert_eq!(warning("299 - \"say \\\"no\\\" \\\\\"").as_deref(), Some("say \"no\" \\"));
        assert_eq!(warning("299"), None);
    }

    #[tokio::test]
    async fn lines_become_events_in_any_pieces() {
        let text = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"3\"}}}\n\n\
            {\"type\":\"ERROR\",\"object\":{\"code\":410,\"reason\":\"Expired\",\"status\":\"Failure\"}}\n{\"type\":\"ADDED\"}\n";
        for size in [1, 10, 1000] {
            let chunks: Vec<_> =
                text.as_bytes().chunks(size).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
            let events: Vec<_> = events(stream::iter(chunks).boxed()).collect().await;
            assert_eq!(events.len(), 2);
            assert_eq!(events[0].as_ref().unwrap().object.resource_version(), 3);
            assert_eq!(events[1].as_ref().unwrap_err().code(), 410);
        }
    }
}
