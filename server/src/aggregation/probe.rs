//! Looks whether the other servers answer, tells it in their APIServices, and fetches what they serve.

use super::forward::user_headers;
use super::{Fetched, Remote, local, resource};
use crate::crd::internal;
use crate::handlers::update;
use crate::outbound::{CallError, Client};
use crate::server::Shared;
use futures::future::join_all;
use http::HeaderMap;
use http::header::ACCEPT;
use kubewright_core::{ApiError, ApiRequest, UserInfo, Verb, meta};
use serde_json::{Value, json};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long another server has for one document.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest document that is read, in bytes.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How often all are looked at.
const EVERY: Duration = Duration::from_secs(30);
/// How often, while one does not answer.
const SOON: Duration = Duration::from_secs(2);
/// Changes that come together are looked at together.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs until the server ends: after every change of what there is to look at, and from time to time.
pub(crate) async fn run(shared: Weak<Shared>, cancel: CancellationToken) {
    loop {
        let Some(server) = shared.upgrade() else { return };
        let remotes = server.aggregator.remotes();
        let wait = match remotes.iter().all(|r| r.is_available()) {
            _ if remotes.is_empty() => None,
            true => Some(EVERY),
            false => Some(SOON),
        };
        // The server is let go while this waits; the aggregator alone does not keep it.
        let aggregator = server.aggregator.clone();
        drop((server, remotes));
        let time = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = aggregator.changed.notified() => tokio::time::sleep(PAUSE).await,
            () = time => {}
        }
        let Some(server) = shared.upgrade() else { return };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = look(&server) => {}
        }
    }
}

async fn look(server: &Arc<Shared>) {
    if let Err(e) = local::ensure(server).await {
        tracing::warn!(error = %e, "the APIServices of this server could not be kept");
    }
    let remotes = server.aggregator.remotes();
    join_all(remotes.iter().map(|remote| one(server, remote))).await;
}

async fn one(server: &Arc<Shared>, remote: &Remote) {
    let found = check(server, remote).await;
    let fresh = match &found {
        Ok(fetched) => remote.set_available(true) | (remote.fetched.load().resources != fetched.resources),
        Err(_) => remote.set_available(false),
    };
    let (status, reason, message) = match found {
        Ok(fetched) => {
            if fresh {
                remote.fetched.store(Arc::new(with_openapi(server, remote, fetched).await));
            }
            ("True", "Passed", "all checks passed".to_owned())
        }
        Err((reason, message)) => ("False", reason, message),
    };
    if fresh {
        server.aggregator.touched();
    }
    if let Err(e) = tell(server, remote, status, reason, &message).await {
        tracing::warn!(name = %remote.name, error = %e, "the condition of an APIService could not be written");
    }
}

/// Whether a server answers: its Service, its endpoints, then its discovery document.
async fn check(server: &Shared, remote: &Remote) -> Result<Fetched, (&'static str, String)> {
    let (namespace, name, port) = remote.service();
    server.outbound.resolver().check(namespace, name, port)?;
    let failed = |why: String| ("FailedDiscoveryCheck", why);
    let destination = remote.destination.as_ref().map_err(|why| failed(why.clone()))?;
    let client = server.outbound.client(destination).map_err(|e| failed(e.to_string()))?;
    let url = client.url(&remote.root());
    let missing = |why: String| failed(format!("failing or missing response from {url}: {why}"));
    let answer = document(&client, &remote.root()).await.map_err(|e| missing(format!("Get {url:?}: {e}")))?;
    if !(200..300).contains(&answer.status) {
        return Err(missing(format!("bad status from {url}: {}", answer.status)));
    }
    let resources = serde_json::from_slice(&answer.body).ok();
    Ok(Fetched { resources, ..Fetched::default() })
}

async fn document(client: &Client, path: &str) -> Result<crate::outbound::Answer, CallError> {
    let mut headers = asker();
    headers.insert(ACCEPT, http::HeaderValue::from_static("application/json"));
    client.get_as(path, headers, TIMEOUT, DOCUMENT_BYTES_MAX).await
}

/// Whom the server itself is to others, as upstream's aggregator.
fn asker() -> HeaderMap {
    let user = UserInfo {
        username: Some("system:kube-aggregator".to_owned()),
        groups: Some(vec!["system:masters".to_owned()]),
        ..UserInfo::default()
    };
    user_headers(&user).unwrap_or_default()
}

/// Adds the other server's OpenAPI documents, where it has any.
async fn with_openapi(server: &Shared, remote: &Remote, mut fetched: Fetched) -> Fetched {
    let Ok(destination) = &remote.destination else { return fetched };
    let Ok(client) = server.outbound.client(destination) else { return fetched };
    let good = |answer: &crate::outbound::Answer| answer.status == 200;
    if let Some(answer) = document(&client, "/openapi/v3").await.ok().filter(good) {
        let index: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let own = remote.root();
        let own = own.trim_start_matches('/');
        let paths = index["paths"].as_object().into_iter().flatten();
        fetched.openapi_v3 =
            paths.filter(|(key, _)| *key == own).map(|(k, v)| (k.clone(), v.clone())).collect();
    }
    fetched.openapi_v2 = document(&client, "/openapi/v2").await.ok().filter(good).map(|a| a.body);
    fetched
}

/// Writes the condition, where it says something else than before.
async fn tell(
    server: &Arc<Shared>,
    remote: &Remote,
    status: &str,
    reason: &str,
    message: &str,
) -> Result<(), ApiError> {
    let found = server.reader.get(&resource(), "", &remote.name)?;
    let Some(object) = found else { return Ok(()) };
    if let Some(before) = condition(&object.value()?)
        && (before["status"] == status && before["reason"] == reason && before["message"] == message)
    {
        return Ok(());
    }
    let request = ApiRequest::resource(Verb::Update, resource(), None, Some(&remote.name));
    let call = internal(server, request)?;
    let now = meta::format_time(server.clock.now());
    let change = |object: &mut Value| {
        let before = condition(object).filter(|b| b["status"] == status);
        let since = before.map_or(json!(now), |b| b["lastTransitionTime"].clone());
        let new = json!({"type": "Available", "status": status, "reason": reason, "message": message, "lastTransitionTime": since});
        let mut all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.retain(|c| c["type"] != "Available");
        all.push(new);
        if !object["status"].is_object() {
            object["status"] = json!({});
        }
        object["status"]["conditions"] = Value::Array(all);
        Ok(())
    };
    match update::edit(&call, &remote.name, &change).await {
        Err(e) if !e.is_not_found() => Err(e),
        _ => Ok(()),
    }
}

fn condition(object: &Value) -> Option<&Value> {
    object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "Available")
}
