//! What is no resource: version, health, metrics, discovery and OpenAPI.

mod aggregated;
mod catalogue;
mod discovery;
mod documents;
mod health;
mod issuer;
mod metrics;
mod openapi;

use crate::server::{Shared, method_not_allowed};
use bytes::Bytes;
pub(crate) use catalogue::is_upstreams_group;
use documents::Document;
pub(crate) use documents::Documents;
use kubewright_core::{ApiError, ApiRequest, ApiResponse, ResponseBody, Verb};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// The release that is told, with our own name as build metadata, so that clients take it for this release.
pub(crate) const GIT_VERSION: &str = "v1.36.0+kubewright";

const PLAIN: &str = "text/plain; charset=utf-8";

/// Answers a request for a path. `target` still has its query behind a `?`.
pub(crate) async fn answer(
    shared: &Shared,
    request: &ApiRequest,
    target: &str,
) -> Result<ApiResponse, ApiError> {
    if request.verb != Verb::Get {
        return Err(method_not_allowed());
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    if let [which @ ("healthz" | "livez" | "readyz"), rest @ ..] = parts.as_slice() {
        return health::answer(shared, which, rest, query).await;
    }
    if shared.cancel.is_cancelled() {
        return Err(ApiError::unavailable("the server is shutting down"));
    }
    match parts.as_slice() {
        [] => document(discovery::paths(&shared.documents.current(shared).catalogue)),
        ["version"] => document(version()),
        ["metrics"] => Ok(text(200, metrics::text(shared))),
        ["metrics", "slis"] => Ok(text(200, metrics::slis(shared).await)),
        ["api" | "apis", ..] => discover(shared, &parts, &request.accept),
        [".well-known", "openid-configuration"] => issuer::configuration(shared),
        ["openid", "v1", "jwks"] => issuer::keys(shared),
        ["openapi", rest @ ..] => {
            openapi::answer(&shared.documents.current(shared), rest, query, &request.accept)
        }
        _ => Err(ApiError::no_such_path()),
    }
}

fn discover(shared: &Shared, parts: &[&str], accept: &str) -> Result<ApiResponse, ApiError> {
    let current = shared.documents.current(shared);
    let catalogue = &current.catalogue;
    if let [root] = parts
        && let Some(form) = aggregated::asked(accept)
    {
        let core = *root == "api";
        let made = current.document(&format!("{root} {}", form.version), || {
            encoded(&aggregated::document(catalogue, core, form.version))
        })?;
        return Ok(kept(form.content_type, made));
    }
    match parts {
        ["api"] => {
            let advertise = (**shared.advertise.load()).unwrap_or((Ipv4Addr::LOCALHOST.into(), 6443));
            document(discovery::core_versions(advertise.into()))
        }
        _ => {
            // Encoded once: clients of the first form ask for dozens of these at every start.
            let made = current.document(&format!("discovery {}", parts.join("/")), || match parts {
                ["api", version] => encoded(&discovery::resources(catalogue, "", version)?),
                ["apis"] => encoded(&discovery::groups(catalogue)),
                ["apis", group] => encoded(&discovery::group(catalogue, group)?),
                ["apis", group, version] => encoded(&discovery::resources(catalogue, group, version)?),
                _ => Err(ApiError::no_such_path()),
            })?;
            Ok(raw("application/json", made.bytes))
        }
    }
}

fn document(value: Value) -> Result<ApiResponse, ApiError> {
    Ok(ApiResponse::new(200, ResponseBody::Value(value)))
}

fn encoded(value: &Value) -> Result<Bytes, ApiError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(ApiError::internal)
}

fn raw(content_type: &'static str, bytes: Bytes) -> ApiResponse {
    ApiResponse::new(200, ResponseBody::Raw { content_type, bytes })
}

/// A document that clients may keep and ask for again by what identifies it.
fn kept(content_type: &'static str, document: Document) -> ApiResponse {
    let mut answer = raw(content_type, document.bytes);
    answer.etag = Some(document.etag);
    answer
}

fn text(code: u16, text: String) -> ApiResponse {
    ApiResponse::new(code, ResponseBody::Raw { content_type: PLAIN, bytes: Bytes::from(text) })
}

/// `/version`. What only a Go program has (its compiler's version) is empty.
fn version() -> Value {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{arch}", std::env::consts::OS),
    })
}
