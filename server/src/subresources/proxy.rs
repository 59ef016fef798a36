//! `pods/proxy`, `services/proxy` and `nodes/proxy`: HTTP to what runs in the cluster, past the API server.

use crate::admission::Operation;
use crate::handlers::{Call, read};
use crate::outbound::{Destination, Place, Trust};
use crate::pipeline;
use crate::relay::{Relay, is_upgrade, passed, unreachable};
use futures::StreamExt;
use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use kubewright_core::passage::Passage;
use kubewright_core::{ApiError, ApiResponse};
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::net::SocketAddr;

/// `[scheme:]name[:port]`.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    scheme: String,
    name: String,
    port: String,
}

impl Wanted {
    fn of(text: &str, what: &str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme @ ("" | "http" | "https"), name, port] => (*scheme, *name, *port),
            _ => ("", "", ""),
        };
        if name.is_empty() {
            return Err(ApiError::bad_request(format!("invalid {what} request {text:?}")));
        }
        Ok(Wanted { scheme: scheme.to_owned(), name: name.to_owned(), port: port.to_owned() })
    }

    fn number(&self) -> Option<u16> {
        self.port.parse().ok().filter(|p| *p > 0)
    }
}

/// Splits the address of a proxied request into what leads here and what is asked for there.
fn split(path: &str) -> (&str, &str) {
    let namespaced = path.trim_start_matches('/').split('/').nth(2) == Some("namespaces");
    // "", api, v1, [namespaces, name,] plural, name, proxy
    let segments = if namespaced { 8 } else { 6 };
    let end = path.match_indices('/').nth(segments - 1).map_or(path.len(), |(at, _)| at);
    path.split_at(end)
}

pub(super) async fn handle(call: Call) -> Result<ApiResponse, ApiError> {
    let Some(passage) = call.passage.clone() else {
        return Err(ApiError::not_implemented("a proxied request that did not come over HTTP"));
    };
    let (prefix, rest) = split(passage.head.uri.path());
    let plural = call.kind.plural();
    let kind = match plural {
        "pods" => "PodProxyOptions",
        "services" => "ServiceProxyOptions",
        _ => "NodeProxyOptions",
    };
    let mut options = json!({"apiVersion": "v1", "kind": kind, "path": rest});
    let request = pipeline::admission_request(&call, Operation::Connect, call.name()?, None);
    pipeline::admit(&call, &request, Some(&mut options)).await?;
    pipeline::admit_validate(&call, &request, Some(&options)).await?;
    let destination = match plural {
        "pods" => pod(&call).await?,
        "services" => service(&call)?,
        _ => node(&call).await?,
    };
    let query = passage.head.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    if rest.is_empty() && !is_upgrade(&passage.head) {
        return Ok(moved(&format!("{prefix}/{query}")));
    }
    let client = call.server.outbound.client(&destination).map_err(|e| unreachable(&e))?;
    let relay = Relay {
        client,
        path: format!("{}{query}", if rest.is_empty() { "/" } else { rest }),
        headers: forwarded(&passage, prefix),
        prefix: Some(prefix.to_owned()),
    };
    relay.run(&call.server, &passage).await
}

/// Relative links of a page need a slash at the end of its address.
fn moved(to: &str) -> ApiResponse {
    let mut headers = HeaderMap::new();
    headers.extend(HeaderValue::try_from(to).map(|to| (LOCATION, to)));
    passed(301, headers, futures::stream::empty().boxed())
}

/// Tells the other side how it was reached.
fn forwarded(passage: &Passage, prefix: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, value: &[u8]| {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("x-forwarded-uri", prefix.as_bytes());
    if let Some(host) = passage.head.headers.get(http::header::HOST) {
        set("x-forwarded-host", host.as_bytes());
    }
    headers
}

fn at(host: &str, port: u16, scheme: &str) -> Destination {
    let trust = if scheme == "https" { Trust::Anybody } else { Trust::Plain };
    Destination { place: Place::Host { host: SmolStr::new(host), port }, trust, identity: None }
}

async fn object(call: &Call, name: &str) -> Result<Value, ApiError> {
    let entry = read::current(call, name).await?;
    entry.shape.object.value()
}

async fn pod(call: &Call) -> Result<Destination, ApiError> {
    let wanted = Wanted::of(call.name()?, "pod")?;
    let pod = object(call, &wanted.name).await?;
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let first = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten()).next();
    let declared = first.and_then(|p| p["containerPort"].as_u64()).and_then(|p| u16::try_from(p).ok());
    let default = if wanted.scheme == "https" { 443 } else { 80 };
    let port = match (wanted.number(), wanted.port.is_empty()) {
        (Some(port), _) => port,
        (None, true) => declared.unwrap_or(default),
        (None, false) => {
            return Err(ApiError::bad_request(format!("invalid pod request {:?}", call.name()?)));
        }
    };
    match pod["status"]["podIP"].as_str().filter(|ip| !ip.is_empty()) {
        Some(ip) => Ok(at(ip, port, &wanted.scheme)),
        None => Err(ApiError::bad_request("address not allowed")),
    }
}

fn service(call: &Call) -> Result<Destination, ApiError> {
    let wanted = Wanted::of(call.name()?, "service")?;
    let found = call.server.outbound.resolver().proxied(&call.namespace, &wanted.name, &wanted.port)?;
    let address: SocketAddr = found;
    Ok(at(&address.ip().to_string(), address.port(), &wanted.scheme))
}

async fn node(call: &Call) -> Result<Destination, ApiError> {
    let wanted = Wanted::of(call.name()?, "node")?;
    let node = object(call, &wanted.name).await?;
    let endpoint = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let kubelet = endpoint.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0);
    let Some(port) = wanted.number().or(kubelet) else {
        let why = format!("the agent of node {:?} serves no HTTP endpoint", wanted.name);
        return Err(ApiError::unavailable(why));
    };
    let addresses: Vec<&Value> = node["status"]["addresses"].as_array().into_iter().flatten().collect();
    let of = |kind: &str| addresses.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str());
    let host = of("InternalIP").or_else(|| of("ExternalIP")).or_else(|| of("Hostname"));
    let host = host.ok_or_else(|| {
        ApiError::unavailable(format!("no preferred addresses found; known addresses: {addresses:?}"))
    })?;
    let secure = wanted.scheme == "https" || (wanted.scheme.is_empty() && Some(port) == kubelet);
    Ok(at(host, port, if secure { "https" } else { "http" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_behind_proxy() {
        let check = |path: &str, prefix: &str, rest: &str| assert_eq!(split(path), (prefix, rest));
        let pod = "/api/v1/namespaces/n/pods/p/proxy";
        check(pod, pod, "");
        check(&format!("{pod}/"), pod, "/");
        check(&format!("{pod}/a/proxy//b"), pod, "/a/proxy//b");
        check("/api/v1/nodes/n:1/proxy/metrics", "/api/v1/nodes/n:1/proxy", "/metrics");
    }

    #[test]
    fn names_carry_scheme_and_port() {
        let check = |text: &str, want: Option<(&str, &str, &str)>| {
            let got = Wanted::of(text, "pod").ok();
            let got = got.as_ref().map(|w| (w.scheme.as_str(), w.name.as_str(), w.port.as_str()));
            assert_eq!(got, want, "{text}");
        };
        check("p", Some(("", "p", "")));
        check("p:80", Some(("", "p", "80")));
        check("https:p:", Some(("https", "p", "")));
        check("https:p:web", Some(("https", "p", "web")));
        check("ftp:p:1", None);
        check(":80", None);
        check("a:b:c:d", None);
    }
}
