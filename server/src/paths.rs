//! What is no resource: version, health, metrics, discovery and OpenAPI.

use crate::server::Shared;
use crate::{discovery, openapi};
use bytes::Bytes;
use kubewright_core::{ApiError, ApiRequest, ApiResponse, ResponseBody, Target, Verb};
use serde_json::json;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// The version that is told, with our own name as build metadata, so that it still counts as this release.
pub(crate) const GIT_VERSION: &str = "v1.36.0+kubewright";

const PLAIN: &str = "text/plain; charset=utf-8";
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// Answers a request for a path.
pub(crate) async fn answer(shared: &Arc<Shared>, request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let Target::Path(target) = &request.target else { return Err(ApiError::no_such_path()) };
    if request.verb != Verb::Get {
        return Err(crate::server::method_not_allowed());
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if let Some(answer) = discovery::answer(shared, path, &request.accept) {
        return answer;
    }
    if let Some(answer) = openapi::answer(shared, path, &request.accept) {
        return answer;
    }
    let mut parts = path.trim_matches('/').split('/');
    match (parts.next().unwrap_or(""), parts.next(), parts.next()) {
        ("version", None, _) => Ok(version()),
        (kind @ ("healthz" | "livez" | "readyz"), check, None) => health(shared, kind, check, query).await,
        ("metrics", None, _) => Ok(text(200, metrics(shared))),
        ("", None, _) => Ok(ApiResponse::new(200, ResponseBody::Value(json!({"paths": PATHS})))),
        _ => Err(ApiError::no_such_path()),
    }
}

const PATHS: &[&str] =
    &["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"];

fn text(code: u16, text: String) -> ApiResponse {
    ApiResponse::new(code, ResponseBody::Raw { content_type: PLAIN, bytes: Bytes::from(text) })
}

fn version() -> ApiResponse {
    let platform = format!(
        "{}/{}",
        std::env::consts::OS,
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    );
    ApiResponse::new(
        200,
        ResponseBody::Value(json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35", "gitVersion": GIT_VERSION,
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
        "compiler": "rustc", "platform": platform})),
    )
}

/// `ok`, or with `verbose` (and on failure) a line for each check, as upstream writes them.
async fn health(
    shared: &Shared,
    kind: &str,
    only: Option<&str>,
    query: &str,
) -> Result<ApiResponse, ApiError> {
    let verbose = form_urlencoded::parse(query.as_bytes()).any(|(k, _)| k == "verbose");
    let excluded =
        |check: &str| form_urlencoded::parse(query.as_bytes()).any(|(k, v)| k == "exclude" && v == check);
    let mut lines = String::new();
    let mut failed = Vec::new();
    let mut known = false;
    for check in ["ping", "etcd", "informer-sync"] {
        if only.is_some_and(|o| o != check) {
            continue;
        }
        known = true;
        if excluded(check) {
            let _ = writeln!(lines, "[+]{check} excluded: ok");
            continue;
        }
        if healthy(shared, check).await {
            let _ = writeln!(lines, "[+]{check} ok");
        } else {
            let _ = writeln!(lines, "[-]{check} failed: reason withheld");
            failed.push(check);
        }
    }
    if !known {
        return Err(ApiError::no_such_path());
    }
    if !failed.is_empty() {
        let _ = write!(lines, "{kind} check failed");
        return Ok(text(500, lines));
    }
    if verbose && only.is_none() {
        let _ = writeln!(lines, "{kind} check passed");
        return Ok(text(200, lines));
    }
    Ok(text(200, "ok".to_owned()))
}

async fn healthy(shared: &Shared, check: &str) -> bool {
    match check {
        "etcd" => {
            let revision = tokio::time::timeout(STORE_PATIENCE, shared.store.current_revision()).await;
            matches!(revision, Ok(Ok(_)))
        }
        "informer-sync" => shared.cache.consistent().await.is_ok(),
        _ => true,
    }
}

fn metrics(shared: &Shared) -> String {
    let mut out = String::from(
        "# HELP apiserver_request_total Requests answered, by verb and code.\n# TYPE apiserver_request_total counter\n",
    );
    for (verb, code, count) in shared.counters.requests() {
        let _ = writeln!(out, "apiserver_request_total{{verb=\"{verb}\",code=\"{code}\"}} {count}");
    }
    out.push_str("# HELP apiserver_resource_objects Objects held, by resource.\n# TYPE apiserver_resource_objects gauge\n");
    let resources = shared.cache.all();
    let mut ids: Vec<_> = resources.keys().collect();
    ids.sort();
    for id in &ids {
        let count = resources[*id].snapshot().len();
        let _ = writeln!(
            out,
            "apiserver_resource_objects{{group=\"{}\",resource=\"{}\"}} {count}",
            id.group, id.resource
        );
    }
    out.push_str("# HELP apiserver_watchers Watches open, by resource.\n# TYPE apiserver_watchers gauge\n");
    for id in &ids {
        let count = resources[*id].watchers();
        let _ = writeln!(
            out,
            "apiserver_watchers{{group=\"{}\",resource=\"{}\"}} {count}",
            id.group, id.resource
        );
    }
    out.push_str("# HELP kubewright_cache_revision The store's revision up to which reads see everything.\n# TYPE kubewright_cache_revision gauge\n");
    let _ = writeln!(out, "kubewright_cache_revision {}", shared.cache.applied());
    out
}
