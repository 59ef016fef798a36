//! From an [`ApiResponse`] or an [`ApiError`] to an HTTP response.

use super::accept::Format;
use super::body::Body;
use super::decode::Shape;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{self, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use kubewright_core::{ApiError, ApiResponse, ResponseBody, WatchEvent, WatchStream};
use serde_json::Value;
use std::task::Poll;
use tokio_util::sync::CancellationToken;

/// Bodies from this size on are compressed for a client that takes gzip, as upstream does.
const GZIP_BYTES_MIN: u64 = 128 * 1024;
/// Events that are ready are sent together, up to about this size.
const WATCH_CHUNK_BYTES: usize = 64 * 1024;
/// Upstream's bound of all the warnings of a response, and of each once the bound is passed.
const WARNINGS_BYTES_MAX: usize = 4096;
const WARNING_BYTES_MAX: usize = 256;
const WARNING: HeaderName = HeaderName::from_static("warning");

/// Writes an answer. `closing` ends the streams when the server shuts down.
///
/// # Errors
/// 400 where the answer is a session that needs an upgraded connection.
pub(super) fn response(
    answer: ApiResponse,
    shape: Shape,
    asked: &HeaderMap,
    closing: &CancellationToken,
) -> Result<Response<Body>, ApiError> {
    if let Some(etag) = &answer.etag
        && is_known(asked, etag)
    {
        return Ok(not_modified(etag));
    }
    let plain = shape.format == Format::Json && !shape.pretty;
    let (media_type, body) = match answer.body {
        ResponseBody::Object(object) if plain => (JSON, Body::full(object.bytes().clone())),
        ResponseBody::Object(object) => written(&object.value()?, shape)?,
        ResponseBody::List(list) if plain => (JSON, Body::list(list)),
        ResponseBody::List(list) => {
            let chunks = Body::list(list).into_chunks().unwrap_or_default();
            let value: Value = serde_json::from_slice(&chunks.concat()).map_err(ApiError::internal)?;
            written(&value, shape)?
        }
        ResponseBody::Value(value) => written(&value, shape)?,
        ResponseBody::Raw { content_type: JSON, bytes } if !plain => {
            let value: Value = serde_json::from_slice(&bytes).map_err(ApiError::internal)?;
            written(&value, shape)?
        }
        ResponseBody::Raw { content_type, bytes } => (content_type, Body::full(bytes)),
        ResponseBody::Watch(events) => (JSON, watch_body(events, closing)),
        ResponseBody::Text(chunks) => {
            let closed = closing.clone().cancelled_owned();
            ("text/plain", Body::stream(chunks.take_until(closed).boxed()))
        }
        ResponseBody::Passed(passed) => {
            let body = passed.body.take_until(closing.clone().cancelled_owned()).boxed();
            let mut response = Response::new(Body::stream(body));
            *response.status_mut() = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::BAD_GATEWAY);
            *response.headers_mut() = passed.headers;
            return Ok(response);
        }
        ResponseBody::Exec(_) | ResponseBody::PortForward(_) => {
            return Err(ApiError::bad_request("Upgrade request required"));
        }
    };
    let mut response = finish(answer.code, media_type, body, shape.gzip);
    warnings(response.headers_mut(), &answer.warnings);
    if answer.immutable {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(FOR_A_YEAR));
    }
    if let Some(etag) = &answer.etag {
        identify(response.headers_mut(), etag);
    }
    if let Some(seconds) = answer.max_age_seconds
        && let Ok(value) = HeaderValue::try_from(format!("public, max-age={seconds}"))
    {
        response.headers_mut().insert(CACHE_CONTROL, value);
    }
    Ok(response)
}

/// Whether the client has these bytes already.
fn is_known(asked: &HeaderMap, etag: &str) -> bool {
    let header = asked.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()).unwrap_or("");
    header
        .split(',')
        .map(|t| t.trim().trim_start_matches("W/").trim_matches('"'))
        .any(|t| t == etag || t == "*")
}

fn not_modified(etag: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    identify(response.headers_mut(), etag);
    response
}

/// Says what identifies the bytes; they may be kept, but are asked for each time.
fn identify(headers: &mut HeaderMap, etag: &str) {
    if let Ok(value) = HeaderValue::try_from(format!("\"{etag}\"")) {
        headers.insert(ETAG, value);
    }
    if !headers.get(CACHE_CONTROL).is_some_and(|v| v.as_bytes().starts_with(b"public")) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    }
    headers.append(VARY, HeaderValue::from_static("Accept"));
}

const JSON: &str = "application/json";
const FOR_A_YEAR: &str = "public, immutable, max-age=31536000";

fn finish(code: u16, media_type: &'static str, body: Body, gzip: bool) -> Response<Body> {
    let compress = gzip && body.len().is_some_and(|n| n >= GZIP_BYTES_MIN);
    let mut response = Response::new(if compress { body.gzip() } else { body });
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.reserve(6);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if compress {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

fn written(value: &impl serde::Serialize, shape: Shape) -> Result<(&'static str, Body), ApiError> {
    let bytes = match (shape.format, shape.pretty) {
        (Format::Json, false) => serde_json::to_vec(value).map_err(ApiError::internal)?,
        (Format::Json, true) => serde_json::to_vec_pretty(value).map_err(ApiError::internal)?,
        (Format::Yaml, _) => serde_saphyr::to_string(value).map_err(ApiError::internal)?.into_bytes(),
    };
    Ok((shape.format.media_type(), Body::full(Bytes::from(bytes))))
}

/// Writes a failure as its `Status`, with the warnings given on the way to it.
pub(super) fn error(error: &ApiError, shape: Shape, said: &[String]) -> Response<Body> {
    let (media_type, body) = written(error.status(), shape).unwrap_or((JSON, Body::empty()));
    let mut response = finish(error.code(), media_type, body, false);
    let seconds = error.status().details.as_ref().and_then(|d| d.retry_after_seconds);
    if let Some(seconds) = seconds.filter(|s| *s > 0) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    warnings(response.headers_mut(), said);
    if error.code() == 401 {
        let challenge = HeaderValue::from_static("Bearer realm=\"kubernetes\"");
        response.headers_mut().insert(http::header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// `299 - "<text>"` for each warning, once.
fn warnings(headers: &mut http::HeaderMap, texts: &[String]) {
    let long = texts.iter().map(String::len).sum::<usize>() > WARNINGS_BYTES_MAX;
    let mut total = 0;
    for (i, text) in texts.iter().enumerate() {
        if texts[..i].contains(text) {
            continue;
        }
        let shown: String = if long { text.chars().take(WARNING_BYTES_MAX).collect() } else { text.clone() };
        total += shown.len();
        if total > WARNINGS_BYTES_MAX {
            return;
        }
        let mut value = String::with_capacity(shown.len() + 8);
        value.push_str("299 - \"");
        for c in shown.chars().filter(|c| !c.is_control()) {
            if matches!(c, '"' | '\\') {
                value.push('\\');
            }
            value.push(c);
        }
        value.push('"');
        if let Ok(value) =
            HeaderValue::from_str(&value).or_else(|_| HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.append(WARNING, value);
        }
    }
}

/// Newline-separated events; what is ready goes out as one chunk.
fn watch_body(events: WatchStream, closing: &CancellationToken) -> Body {
    let mut events = Some(events.take_until(closing.clone().cancelled_owned()).boxed());
    let chunks = stream::poll_fn(move |cx| {
        let mut out = BytesMut::new();
        while let Some(source) = &mut events {
            match source.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(event))) => put_event(&mut out, &event),
                Poll::Ready(Some(Err(error))) => {
                    put_error(&mut out, &error);
                    events = None;
                }
                Poll::Ready(None) => events = None,
                Poll::Pending if out.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
            if out.len() >= WATCH_CHUNK_BYTES {
                break;
            }
        }
        Poll::Ready((!out.is_empty()).then(|| Ok(out.freeze())))
    });
    Body::stream(chunks.boxed())
}

fn put_event(out: &mut BytesMut, event: &WatchEvent) {
    let bytes = event.object.bytes();
    out.reserve(bytes.len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(event.event.as_str().as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(bytes);
    out.put_slice(b"}\n");
}

fn put_error(out: &mut BytesMut, error: &ApiError) {
    out.put_slice(b"{\"type\":\"ERROR\",\"object\":");
    out.put_slice(&serde_json::to_vec(error.status()).unwrap_or_else(|_| b"{}".to_vec()));
    out.put_slice(b"}\n");
}
