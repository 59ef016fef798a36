//! HTTPS from the server to others: webhooks, aggregated API servers, and what is proxied.
//!
//! A [`Client`] belongs to one destination (a Service or an address, whom to trust, whom to be) and keeps its connections. Clients are made
//! when first asked for, so that a server that calls nobody holds no TLS at all. Nothing follows redirects; bodies and times are bounded by
//! the caller.

mod call;
mod connect;
mod resolve;
mod tls;
mod words;

pub(crate) use call::{Answer, Body, full, refused, streamed};
pub(crate) use resolve::Resolver;
pub(crate) use words::CallError;

use connect::Connector;
use http::uri::Authority;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use serde_json::Value;
use smol_str::SmolStr;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How many clients are kept; the one made first goes first.
const CLIENTS_MAX: usize = 200;
/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How many unused connections to a destination are kept.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A Service, by the port that it offers.
    Service {
        /// Its namespace.
        namespace: SmolStr,
        /// Its name.
        name: SmolStr,
        /// The port of the Service.
        port: u16,
    },
    /// A host and port.
    Host {
        /// A name or an address, IPv6 without brackets.
        host: SmolStr,
        /// The port.
        port: u16,
    },
}

impl Place {
    /// The name that the other side's certificate has to carry.
    fn server_name(&self) -> String {
        match self {
            Place::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
            Place::Host { host, .. } => host.to_string(),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Place::Service { port, .. } | Place::Host { port, .. } => *port,
        }
    }

    /// `name:port`, as it stands in addresses and in the `Host` header.
    pub(crate) fn authority(&self) -> String {
        let name = self.server_name();
        if name.contains(':') {
            format!("[{name}]:{}", self.port())
        } else {
            format!("{name}:{}", self.port())
        }
    }
}

/// Whose certificates are believed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Those of these authorities, in PEM.
    Bundle(Arc<str>),
    /// Those of the system's authorities.
    System,
    /// Any at all.
    Anybody,
    /// There is no TLS.
    Plain,
}

/// Whom to show the other side.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The certificate and its chain, in PEM.
    pub(crate) certificate_pem: String,
    /// Its key, in PEM.
    pub(crate) key_pem: String,
}

/// All that decides over a connection.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) place: Place,
    pub(crate) trust: Trust,
    pub(crate) identity: Option<Arc<Identity>>,
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Destination({})", self.place.authority())
    }
}

/// A destination with the path to call there, out of a `clientConfig` of webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) destination: Destination,
    /// With its leading slash.
    pub(crate) path: String,
}

impl Endpoint {
    /// What a `clientConfig {url | service, caBundle}` names.
    ///
    /// # Errors
    /// Says in upstream's words what is wrong with it.
    pub(crate) fn of_client_config(config: &Value) -> Result<Self, String> {
        let trust = trust(config.get("caBundle").and_then(Value::as_str).unwrap_or(""))?;
        let text = |value: &Value, field: &str| SmolStr::new(value[field].as_str().unwrap_or(""));
        if let Some(service) = config.get("service").filter(|s| s.is_object()) {
            let port = service["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(443);
            let place =
                Place::Service { namespace: text(service, "namespace"), name: text(service, "name"), port };
            let path = absolute(service["path"].as_str().unwrap_or(""));
            return Ok(Endpoint { destination: Destination { place, trust, identity: None }, path });
        }
        let url = config.get("url").and_then(Value::as_str).unwrap_or("");
        if url.is_empty() {
            return Err("webhook configuration must have either service or URL".to_owned());
        }
        let uri: http::Uri = url.parse().map_err(|e| format!("Unparsable URL: {e}"))?;
        let plain = uri.scheme_str() == Some("http");
        let place = host_of(uri.authority(), if plain { 80 } else { 443 })
            .ok_or_else(|| format!("Unparsable URL: {url:?} names no host"))?;
        let trust = if plain { Trust::Plain } else { trust };
        let path = absolute(uri.path_and_query().map_or("", |p| p.as_str()));
        Ok(Endpoint { destination: Destination { place, trust, identity: None }, path })
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn host_of(authority: Option<&Authority>, default_port: u16) -> Option<Place> {
    let authority = authority?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(default_port);
    (!host.is_empty()).then(|| Place::Host { host: SmolStr::new(host), port })
}

/// The trust of a `caBundle`, which stands in objects as base64 of PEM.
///
/// # Errors
/// Where it is no base64 of text.
pub(crate) fn trust(ca_bundle: &str) -> Result<Trust, String> {
    use base64::Engine;
    if ca_bundle.is_empty() {
        return Ok(Trust::System);
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(ca_bundle);
    let text = bytes.ok().and_then(|b| String::from_utf8(b).ok());
    text.map(|t| Trust::Bundle(t.into()))
        .ok_or_else(|| "unable to load root certificates: the caBundle is no PEM".to_owned())
}

/// The clients of one server.
pub(crate) struct Outbound {
    resolver: Resolver,
    clients: Mutex<VecDeque<(Destination, Arc<Client>)>>,
}

impl Outbound {
    /// Nothing is connected or made yet.
    pub(crate) fn new(resolver: Resolver) -> Self {
        Outbound { resolver, clients: Mutex::default() }
    }

    /// Where Services lead.
    pub(crate) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// The client of a destination, made at the first call.
    ///
    /// # Errors
    /// Where the destination's certificates are damaged.
    pub(crate) fn client(&self, destination: &Destination) -> Result<Arc<Client>, CallError> {
        let mut clients = self.clients.lock();
        if let Some((_, client)) = clients.iter().find(|(d, _)| d == destination) {
            return Ok(client.clone());
        }
        let made = Arc::new(Client::new(destination, self.resolver.clone())?);
        if clients.len() == CLIENTS_MAX {
            clients.pop_front();
        }
        clients.push_back((destination.clone(), made.clone()));
        Ok(made)
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outbound({} clients)", self.clients.lock().len())
    }
}

/// Calls to one destination.
pub(crate) struct Client {
    http: legacy::Client<Connector, Body>,
    /// `https://name:port`.
    base: String,
}

impl Client {
    fn new(destination: &Destination, resolver: Resolver) -> Result<Self, CallError> {
        let tls = tls::config(destination)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let base = format!("{scheme}://{}", destination.place.authority());
        let connector = Connector::new(destination.place.clone(), tls, resolver);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        Ok(Client { http, base })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn client_configs_are_read() {
        let check = |config: Value, want: Result<(&str, &str), &str>| {
            let got = Endpoint::of_client_config(&config);
            let got = got.as_ref().map(|e| (e.destination.place.authority(), e.path.as_str()));
            let got = got.as_ref().map(|(a, p)| (a.as_str(), *p)).map_err(|e| e.as_str());
            assert_eq!(got, want, "{config}");
        };
        check(json!({"service": {"namespace": "n", "name": "s"}}), Ok(("s.n.svc:443", "/")));
        check(
            json!({"service": {"namespace": "n", "name": "s", "port": 8443, "path": "/a/b"}}),
            Ok(("s.n.svc:8443", "/a/b")),
        );
        check(json!({"url": "https://a.example/hook?x=y"}), Ok(("a.example:443", "/hook?x=y")));
        check(json!({"url": "https://[::1]:7/"}), Ok(("[::1]:7", "/")));
        check(json!({}), Err("webhook configuration must have either service or URL"));
        check(
            json!({"url": "https://a", "caBundle": "%"}),
            Err("unable to load root certificates: the caBundle is no PEM"),
        );
        assert!(Endpoint::of_client_config(&json!({"url": "https://a b"})).is_err());
    }
}
