//! Connections that leave HTTP behind: exec, attach and port-forward over WebSocket and SPDY/3.1.

mod exec;
mod forward;
mod forward_channels;
mod protocol;
mod spdy;
mod websocket;

use super::Body;
use crate::http::decode::header;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use kubewright_core::node_api::ExecOptions;
use kubewright_core::{ApiError, ApiRequest, ApiResponse, Reason, ResponseBody, Target};
use protocol::{Dialect, Protocol, Transport};
use std::time::Duration;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How long the other side of a finished session may take to close it.
const FAREWELL: Duration = Duration::from_secs(2);
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// Owns the tasks of the running sessions; they end with it.
pub(super) struct Sessions {
    tasks: TaskTracker,
    closing: CancellationToken,
    _ends_the_sessions: DropGuard,
}

impl Sessions {
    pub(super) fn new(closing: CancellationToken) -> Self {
        let closing = closing.child_token();
        let guard = closing.clone().drop_guard();
        Sessions { tasks: TaskTracker::new(), closing, _ends_the_sessions: guard }
    }

    fn spawn(&self, session: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            tokio::select! { () = session => {}, () = closing.cancelled() => {} }
        });
    }
}

/// The upgrade that a request asks for, with the protocol agreed on.
pub(super) struct Upgrade {
    protocol: Protocol,
    /// What the client named, sent back; `None` where it named nothing.
    chosen: Option<&'static str>,
    exec: Option<ExecOptions>,
    ports: Vec<u16>,
}

/// Which upgrade a request asks for, if any.
///
/// # Errors
/// 400 where it names protocols that the server does not speak.
pub(super) fn requested(request: &ApiRequest, parts: &Parts) -> Result<Option<Upgrade>, ApiError> {
    let Target::Resource { subresource: Some(subresource), .. } = &request.target else { return Ok(None) };
    let forward = match subresource.as_str() {
        "exec" | "attach" => false,
        "portforward" => true,
        _ => return Ok(None),
    };
    let transport = match header(&parts.headers, &UPGRADE) {
        "" => return Ok(None),
        kind if kind.eq_ignore_ascii_case("websocket") => Transport::WebSocket,
        kind if kind.eq_ignore_ascii_case("SPDY/3.1") => Transport::Spdy,
        kind => {
            return Err(ApiError::bad_request(format!("unable to upgrade: protocol {kind:?} is not spoken")));
        }
    };
    let name = if transport == Transport::WebSocket { &SEC_WEBSOCKET_PROTOCOL } else { &STREAM_PROTOCOL };
    let offered: Vec<&str> = parts
        .headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .filter(|v| !v.is_empty())
        .collect();
    let found = protocol::choose(transport, forward, &offered).ok_or_else(|| {
        ApiError::bad_request(format!("unable to upgrade: none of the protocols {offered:?} is spoken"))
    })?;
    let exec = request.options.exec.as_deref().cloned();
    if let Some(options) = exec.as_ref().filter(|o| !(o.stdin || o.stdout || o.stderr)) {
        let _ = options;
        return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let ports = request.options.ports.clone();
    if found.0.dialect == Dialect::ForwardChannels && ports.is_empty() {
        return Err(ApiError::bad_request("query parameter \"ports\" is required"));
    }
    Ok(Some(Upgrade { protocol: found.0, chosen: found.1, exec, ports }))
}

impl Upgrade {
    /// Answers 101 and runs the session behind it.
    ///
    /// # Errors
    /// Where the server gave no session, or the connection cannot be upgraded (HTTP/2, or no socket at all).
    pub(super) fn accept(
        self,
        parts: &mut Parts,
        answer: ApiResponse,
        sessions: &Sessions,
    ) -> Result<Response<Body>, ApiError> {
        let Some(upgraded) = parts.extensions.remove::<OnUpgrade>() else {
            return Err(ApiError::bad_request("this connection cannot be upgraded"));
        };
        let response = self.response(parts)?;
        let wrong = || ApiError::new(Reason::InternalError, "the server gave no session for the upgrade");
        match (self.protocol.dialect, answer.body) {
            (Dialect::Exec, ResponseBody::Exec(session)) => {
                let options = self.exec.unwrap_or_default();
                sessions.spawn(exec::run(upgraded, self.protocol, session, options));
            }
            (Dialect::Forward, ResponseBody::PortForward(forwarder)) => {
                sessions.spawn(forward::run(upgraded, self.protocol.transport, forwarder));
            }
            (Dialect::ForwardChannels, ResponseBody::PortForward(forwarder)) => {
                let coding = self.protocol.coding;
                sessions.spawn(forward_channels::run(upgraded, coding, self.ports, forwarder));
            }
            _ => return Err(wrong()),
        }
        Ok(response)
    }

    fn response(&self, parts: &Parts) -> Result<Response<Body>, ApiError> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        let chosen = self.chosen.map(HeaderValue::from_static);
        match self.protocol.transport {
            Transport::WebSocket => {
                let Some(key) = parts.headers.get(SEC_WEBSOCKET_KEY) else {
                    return Err(ApiError::bad_request("the header Sec-WebSocket-Key is missing"));
                };
                let accept = derive_accept_key(key.as_bytes());
                let accept = HeaderValue::try_from(accept).map_err(ApiError::internal)?;
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
                headers.extend(chosen.map(|c| (SEC_WEBSOCKET_PROTOCOL, c)));
            }
            Transport::Spdy => {
                headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
                headers.extend(chosen.map(|c| (STREAM_PROTOCOL, c)));
            }
        }
        Ok(response)
    }
}
