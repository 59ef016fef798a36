//! From an HTTP request to an [`ApiRequest`].

use super::accept::{self, Format, Negotiated};
use super::{path, query};
use crate::protobuf;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Method};
use http_body::Body;
use http_body_util::BodyExt;
use kubewright_core::{
    ApiError, ApiRequest, Clock, ContentType, Reason, Representation, RequestBody, Target, UserInfo, Verb,
};
use smol_str::SmolStr;
use std::sync::Arc;
use std::time::Duration;

/// Upstream's limit of a request's body.
pub(super) const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// A request understood up to its body.
pub(super) struct Head {
    pub(super) request: ApiRequest,
    pub(super) shape: Shape,
    /// The time that the answer may take; `None` for streams.
    pub(super) timeout: Option<Duration>,
}

/// How the answer is to be written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shape {
    pub(super) format: Format,
    pub(super) pretty: bool,
    pub(super) gzip: bool,
}

/// Reads everything but the body.
///
/// # Errors
/// 400, 404, 405, 406 and 422, as upstream has them.
pub(super) fn head(
    parts: &Parts,
    user: Arc<UserInfo>,
    clock: &dyn Clock,
    default_timeout: Duration,
) -> Result<Head, ApiError> {
    let query_text = parts.uri.query().unwrap_or("");
    let route = path::parse(parts.uri.path(), parts.uri.query())?;
    let subresource = match &route.target {
        Target::Resource { subresource, .. } => subresource.as_deref(),
        Target::Path(_) => None,
    };
    let query = query::parse(query_text, subresource, clock)?;
    let is_path = matches!(route.target, Target::Path(_));
    let verb = path::verb(&parts.method, &route.target, !is_path && (route.watch || query.watch))?;
    let accept = header(&parts.headers, &ACCEPT);
    let negotiated = if is_path || streams_bytes(subresource) {
        // Discovery and OpenAPI read the header themselves; logs and upgrades have one form only.
        accept::negotiate(accept).map(without_representation).unwrap_or_default()
    } else {
        accept::negotiate(accept)?
    };
    if verb == Verb::Watch && negotiated.format == Format::Yaml {
        return Err(accept::negotiate("-").map(drop).unwrap_err());
    }
    let timeout = timeout(verb, subresource, query.timeout_seconds, default_timeout);
    let shape = Shape {
        format: negotiated.format,
        pretty: negotiated.pretty || query.pretty.unwrap_or_else(|| for_people(&parts.headers)),
        gzip: accepts_gzip(&parts.headers),
    };
    let mut request = ApiRequest::new(verb, route.target);
    request.options = query.options;
    request.user = user;
    request.representation = negotiated.representation;
    request.include_object = query.include_object;
    request.user_agent = SmolStr::new(header(&parts.headers, &USER_AGENT));
    request.accept = SmolStr::new(accept);
    name_from_selector(&mut request, route.watch);
    Ok(Head { request, shape, timeout })
}

fn without_representation(negotiated: Negotiated) -> Negotiated {
    Negotiated { representation: Representation::Object, ..negotiated }
}

fn streams_bytes(subresource: Option<&str>) -> bool {
    subresource
        .is_some_and(|s| matches!(s, "log" | "exec" | "attach" | "portforward") || s.starts_with("proxy"))
}

/// The legacy path `/watch/.../<name>` is a watch of the collection with a field selector on the name.
fn name_from_selector(request: &mut ApiRequest, legacy_watch: bool) {
    let Target::Resource { name, .. } = &mut request.target else { return };
    if request.verb != Verb::Watch || !(legacy_watch || name.is_some()) {
        return;
    }
    if let Some(name) = name.take() {
        let selector = format!("metadata.name={name}");
        request.options.field_selector = Some(match request.options.field_selector.take() {
            Some(other) => format!("{other},{selector}"),
            None => selector,
        });
    }
}

fn timeout(
    verb: Verb,
    subresource: Option<&str>,
    asked_seconds: Option<u64>,
    default: Duration,
) -> Option<Duration> {
    if verb == Verb::Watch || streams_bytes(subresource) {
        return None;
    }
    let asked = asked_seconds.filter(|s| *s > 0).map(Duration::from_secs);
    Some(asked.map_or(default, |asked| asked.min(default)))
}

/// The text of a header, empty where it is absent or unreadable.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> &'a str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
}

/// Upstream indents for browsers, curl and wget.
fn for_people(headers: &HeaderMap) -> bool {
    let agent = header(headers, &USER_AGENT);
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|p| agent.starts_with(p))
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    header(headers, &ACCEPT_ENCODING)
        .split(',')
        .any(|e| e.split(';').next().is_some_and(|e| e.trim() == "gzip"))
}

/// Reads the body of a request whose verb may have one.
///
/// # Errors
/// 413 above 3 MiB, 415 for a content type that is not read, 400 where the client stopped in the middle.
pub(super) async fn body<B>(request: &ApiRequest, parts: &Parts, body: B) -> Result<RequestBody, ApiError>
where
    B: Body,
    B::Error: std::fmt::Display,
{
    if matches!(parts.method, Method::GET | Method::HEAD) || body.is_end_stream() {
        return empty_body(request, parts);
    }
    let bytes = whole(parts, body).await?;
    if bytes.is_empty() {
        return empty_body(request, parts);
    }
    let media = header(&parts.headers, &CONTENT_TYPE).split(';').next().unwrap_or("").trim();
    if media == protobuf::MEDIA_TYPE && request.verb != Verb::Patch {
        let value = protobuf::decode(&bytes)?;
        return Ok(RequestBody::Value { content_type: ContentType::Json, value });
    }
    Ok(RequestBody::Bytes { content_type: content_type(request, parts)?, bytes })
}

/// The bytes of a body, whatever they are.
///
/// # Errors
/// 413 above 3 MiB, 400 where the client stopped in the middle.
pub(super) async fn whole<B>(parts: &Parts, body: B) -> Result<Bytes, ApiError>
where
    B: Body,
    B::Error: std::fmt::Display,
{
    let declared = header(&parts.headers, &CONTENT_LENGTH).parse::<usize>().unwrap_or(0);
    if declared > BODY_BYTES_MAX { Err(too_large()) } else { collect(body, declared).await }
}

/// Whether a body is that of a server-side apply.
pub(super) fn is_apply(body: &RequestBody) -> bool {
    matches!(body, RequestBody::Bytes { content_type, .. } if *content_type == ContentType::ApplyPatch)
}

fn empty_body(request: &ApiRequest, parts: &Parts) -> Result<RequestBody, ApiError> {
    if request.verb == Verb::Patch {
        content_type(request, parts)?;
    }
    Ok(RequestBody::Empty)
}

async fn collect<B>(body: B, declared: usize) -> Result<Bytes, ApiError>
where
    B: Body,
    B::Error: std::fmt::Display,
{
    let mut body = std::pin::pin!(body);
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|e| ApiError::bad_request(format!("error reading the request body: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let data = bytes_of(data);
        if first.len() + all.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.reserve(declared.max(first.len() + data.len()));
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

pub(super) fn bytes_of(mut data: impl bytes::Buf) -> Bytes {
    data.copy_to_bytes(data.remaining())
}

fn too_large() -> ApiError {
    let message = format!("Request entity too large: limit is {BODY_BYTES_MAX}");
    ApiError::new(Reason::RequestEntityTooLarge, message)
}

fn content_type(request: &ApiRequest, parts: &Parts) -> Result<ContentType, ApiError> {
    let text = header(&parts.headers, &CONTENT_TYPE);
    let media = text.split(';').next().unwrap_or("").trim();
    if request.verb == Verb::Patch {
        return Ok(match media {
            "application/json-patch+json" => ContentType::JsonPatch,
            "application/merge-patch+json" => ContentType::MergePatch,
            "application/strategic-merge-patch+json" => ContentType::StrategicMergePatch,
            "application/apply-patch+yaml" => ContentType::ApplyPatch,
            _ => {
                return Err(unsupported(
                    "application/json-patch+json, application/merge-patch+json, \
                     application/strategic-merge-patch+json, application/apply-patch+yaml",
                ));
            }
        });
    }
    match media {
        "" | "*/*" | "application/json" => Ok(ContentType::Json),
        "application/yaml" => Ok(ContentType::Yaml),
        // What a client without an opinion sends (curl -d); upstream reads it as JSON only for delete options, but
        // refuses it elsewhere.
        _ if matches!(request.verb, Verb::Delete | Verb::DeleteCollection) => Ok(ContentType::Json),
        _ => Err(unsupported("application/json, application/yaml, application/vnd.kubernetes.protobuf")),
    }
}

fn unsupported(accepted: &str) -> ApiError {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {accepted}"
    );
    ApiError::new(Reason::UnsupportedMediaType, message)
}
