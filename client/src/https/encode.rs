//! From an [`ApiRequest`] to an HTTP request.

use super::config::Config;
use bytes::Bytes;
use form_urlencoded::Serializer;
use http::header::{
    ACCEPT, CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE, USER_AGENT,
};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use kubewright_core::{
    ApiError, ApiRequest, ContentType, Options, Representation, RequestBody, Target, Verb,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

/// What stays as it is in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Writes a request.
///
/// # Errors
/// 400 for what HTTP cannot carry.
pub(super) fn request(config: &Config, request: &ApiRequest) -> Result<Request<Full<Bytes>>, ApiError> {
    let method = match request.verb {
        Verb::Get | Verb::List | Verb::Watch => Method::GET,
        Verb::Create => Method::POST,
        Verb::Update => Method::PUT,
        Verb::Patch => Method::PATCH,
        Verb::Delete | Verb::DeleteCollection => Method::DELETE,
    };
    let mut http = Request::new(Full::default());
    *http.method_mut() = method;
    *http.uri_mut() = uri(config, request)?;
    common_headers(&mut http, config, request)?;
    let (media, bytes) = match &request.body {
        RequestBody::Empty => return Ok(http),
        RequestBody::Bytes { content_type, bytes } => (*content_type, bytes.clone()),
        RequestBody::Value { content_type, value } => {
            (*content_type, Bytes::from(serde_json::to_vec(value).map_err(ApiError::internal)?))
        }
    };
    http.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type(media)));
    *http.body_mut() = Full::new(bytes);
    Ok(http)
}

/// Writes a request that opens a WebSocket.
///
/// # Errors
/// As [`request`].
pub(super) fn upgrade(
    config: &Config,
    request: &ApiRequest,
    protocol: &'static str,
) -> Result<Request<Full<Bytes>>, ApiError> {
    let mut http = Request::new(Full::default());
    *http.uri_mut() = uri(config, request)?;
    common_headers(&mut http, config, request)?;
    let key = HeaderValue::try_from(generate_key()).map_err(ApiError::internal)?;
    let headers = http.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, key);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    Ok(http)
}

fn common_headers(
    http: &mut Request<Full<Bytes>>,
    config: &Config,
    request: &ApiRequest,
) -> Result<(), ApiError> {
    let text = |v: &str| {
        HeaderValue::from_str(v).map_err(|_| ApiError::bad_request(format!("{v:?} fits no header")))
    };
    let headers = http.headers_mut();
    headers.insert(ACCEPT, text(accept(request))?);
    if !request.user_agent.is_empty() {
        headers.insert(USER_AGENT, text(&request.user_agent)?);
    }
    if let Some(user) = &config.impersonate {
        headers.insert("impersonate-user", text(user)?);
        for group in &config.impersonate_groups {
            headers.append("impersonate-group", text(group)?);
        }
    }
    Ok(())
}

fn accept(request: &ApiRequest) -> &str {
    if !request.accept.is_empty() {
        return &request.accept;
    }
    match (request.representation, request.verb) {
        (Representation::Object, _) if matches!(request.target, Target::Path(_)) => "application/json, */*",
        (Representation::Object, _) => "application/json",
        (Representation::Table, _) => "application/json;as=Table;v=v1;g=meta.k8s.io",
        (Representation::PartialObjectMetadata, Verb::List) => {
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
        }
        (Representation::PartialObjectMetadata, _) => {
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
        }
    }
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

fn uri(config: &Config, request: &ApiRequest) -> Result<Uri, ApiError> {
    let mut path = config.server.path().trim_end_matches('/').to_owned();
    match &request.target {
        Target::Path(own) => {
            if !own.starts_with('/') {
                path.push('/');
            }
            path.push_str(own);
        }
        Target::Resource { resource, namespace, name, subresource } => {
            path.push_str(if resource.group.is_empty() { "/api/" } else { "/apis/" });
            path.push_str(&resource.api_version());
            let mut segment = |text: &str| {
                path.push('/');
                path.extend(utf8_percent_encode(text, SEGMENT));
            };
            if let Some(namespace) = namespace {
                segment("namespaces");
                segment(namespace);
            }
            segment(&resource.resource);
            if let Some(name) = name {
                segment(name);
            }
            if let Some(subresource) = subresource {
                path.push('/');
                path.push_str(subresource);
            }
        }
    }
    let query = query(request);
    if !query.is_empty() {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(&query);
    }
    let mut parts = config.server.clone().into_parts();
    let path = path.parse().map_err(|e| ApiError::bad_request(format!("the path {path:?}: {e}")))?;
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|e| ApiError::bad_request(e.to_string()))
}

fn query(request: &ApiRequest) -> String {
    let mut out = Serializer::new(String::new());
    if request.verb == Verb::Watch {
        out.append_pair("watch", "true");
    }
    let o = &request.options;
    let texts = [
        ("labelSelector", &o.label_selector),
        ("fieldSelector", &o.field_selector),
        ("continue", &o.continue_token),
        ("resourceVersion", &o.resource_version),
        ("resourceVersionMatch", &o.resource_version_match),
        ("fieldManager", &o.field_manager),
        ("fieldValidation", &o.field_validation),
        ("propagationPolicy", &o.propagation_policy),
        ("container", &o.container),
        ("includeObject", &request.include_object),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            out.append_pair(name, value);
        }
    }
    let numbers = [
        ("limit", o.limit.map(|n| n.to_string())),
        ("timeoutSeconds", o.timeout_seconds.map(|n| n.to_string())),
        ("gracePeriodSeconds", o.grace_period_seconds.map(|n| n.to_string())),
        ("sendInitialEvents", o.send_initial_events.map(|b| b.to_string())),
        ("force", o.force.map(|b| b.to_string())),
        ("orphanDependents", o.orphan_dependents.map(|b| b.to_string())),
        ("allowWatchBookmarks", o.allow_watch_bookmarks.then(|| "true".to_owned())),
        ("dryRun", o.dry_run.then(|| "All".to_owned())),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            out.append_pair(name, &value);
        }
    }
    stream_options(&mut out, o);
    out.finish()
}

fn stream_options(out: &mut Serializer<'_, String>, options: &Options) {
    for port in &options.ports {
        out.append_pair("ports", &port.to_string());
    }
    if let Some(exec) = &options.exec {
        for word in &exec.command {
            out.append_pair("command", word);
        }
        let flags =
            [("stdin", exec.stdin), ("stdout", exec.stdout), ("stderr", exec.stderr), ("tty", exec.tty)];
        for (name, _) in flags.iter().filter(|(_, on)| *on) {
            out.append_pair(name, "true");
        }
    }
    if let Some(log) = &options.log {
        let flags = [("follow", log.follow), ("previous", log.previous), ("timestamps", log.timestamps)];
        for (name, _) in flags.iter().filter(|(_, on)| *on) {
            out.append_pair(name, "true");
        }
        let values = [
            ("sinceTime", log.since.map(|t| t.to_string())),
            ("tailLines", log.tail_lines.map(|n| n.to_string())),
            ("limitBytes", log.limit_bytes.map(|n| n.to_string())),
            ("stream", log.stream.clone()),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                out.append_pair(name, &value);
            }
        }
    }
}
