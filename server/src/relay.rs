//! Passing a request on as it came, and its answer back, upgrades included.

use crate::outbound::{Body, CallError, Client, full, streamed};
use crate::server::Shared;
use bytes::Bytes;
use futures::StreamExt;
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderName, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use kubewright_core::passage::{ByteStream, Passage, Passed};
use kubewright_core::{ApiError, ApiResponse, ResponseBody};
use std::sync::Arc;

/// Headers that concern one connection.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Where a request goes and how it is changed on the way.
pub(crate) struct Relay {
    pub(crate) client: Arc<Client>,
    /// Path and query there.
    pub(crate) path: String,
    /// Headers set on the way.
    pub(crate) headers: HeaderMap,
    /// What stands before the other side's paths here, for redirects that it sends.
    pub(crate) prefix: Option<String>,
}

/// Whether a request wants to leave HTTP.
pub(crate) fn is_upgrade(head: &Parts) -> bool {
    let connection = head.headers.get(CONNECTION).and_then(|v| v.to_str().ok()).unwrap_or("");
    head.headers.contains_key(UPGRADE) && connection.to_ascii_lowercase().contains("upgrade")
}

/// 503 for an other side that could not be reached, in upstream's words.
pub(crate) fn unreachable(error: &CallError) -> ApiError {
    ApiError::unavailable(format!("error trying to reach service: {error}"))
}

impl Relay {
    /// Passes a request on and gives its answer, whose body then comes as it comes.
    ///
    /// # Errors
    /// 503 where the other side can't be reached, 400 where it upgrades and this side can't.
    pub(crate) async fn run(self, server: &Shared, passage: &Passage) -> Result<ApiResponse, ApiError> {
        let upgrade = is_upgrade(&passage.head);
        let request = self.request(passage, upgrade);
        let response = self.client.send(request, &self.path).await.map_err(|e| unreachable(&e))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return join(server, passage, response);
        }
        let (head, body) = response.into_parts();
        let mut headers = head.headers;
        strip(&mut headers);
        if let Some(prefix) = &self.prefix {
            self.rewrite(&mut headers, prefix);
        }
        Ok(passed(head.status.as_u16(), headers, chunks(body)))
    }

    fn request(&self, passage: &Passage, upgrade: bool) -> Request<Body> {
        let head = &passage.head;
        let mut headers = head.headers.clone();
        strip(&mut headers);
        for name in [AUTHORIZATION, HOST] {
            headers.remove(name);
        }
        // Only this server says on whose behalf it asks.
        let claims =
            |n: &&HeaderName| n.as_str().starts_with("x-remote-") || n.as_str().starts_with("impersonate-");
        for name in head.headers.keys().filter(claims) {
            headers.remove(name);
        }
        if upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.extend(head.headers.get(UPGRADE).map(|v| (UPGRADE, v.clone())));
        }
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        let body = match passage.take_body() {
            None => full(Bytes::new()),
            Some(chunks) => streamed(chunks.map(|c| c.map_err(std::io::Error::other)).boxed()),
        };
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.headers_mut() = headers;
        request
    }

    /// Brings a redirect back to where the client finds it.
    fn rewrite(&self, headers: &mut HeaderMap, prefix: &str) {
        let Some(location) = headers.get(LOCATION).and_then(|v| v.to_str().ok()) else { return };
        let base = self.client.url("");
        let path = location.strip_prefix(&base).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let path = path.or_else(|| Some(location).filter(|l| l.starts_with('/') && !l.starts_with("//")));
        if let Some(value) = path.and_then(|p| HeaderValue::try_from(format!("{prefix}{p}")).ok()) {
            headers.insert(LOCATION, value);
        }
    }
}

fn strip(headers: &mut HeaderMap) {
    let named = headers.get(CONNECTION).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    for name in named.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn chunks(mut body: Incoming) -> ByteStream {
    let chunks = futures::stream::poll_fn(move |cx| {
        use http_body::Body;
        loop {
            return match std::task::ready!(std::pin::Pin::new(&mut body).poll_frame(cx)) {
                None => std::task::Poll::Ready(None),
                Some(Err(e)) => std::task::Poll::Ready(Some(Err(ApiError::internal(e)))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => std::task::Poll::Ready(Some(Ok(data))),
                    Err(_) => continue,
                },
            };
        }
    });
    chunks.boxed()
}

/// An answer that is passed back as it is.
pub(crate) fn passed(code: u16, headers: HeaderMap, body: ByteStream) -> ApiResponse {
    ApiResponse::new(code, ResponseBody::Passed(Passed { headers, body }))
}

/// Joins two connections that have left HTTP, until one ends.
fn join(
    server: &Shared,
    passage: &Passage,
    mut response: Response<Incoming>,
) -> Result<ApiResponse, ApiError> {
    let Some(near) = passage.head.extensions.get::<OnUpgrade>().cloned() else {
        return Err(ApiError::bad_request("this connection cannot be upgraded"));
    };
    let far = hyper::upgrade::on(&mut response);
    let cancel = server.cancel.clone();
    server.writes.spawn(async move {
        let both = async {
            let (Ok(near), Ok(far)) = (near.await, far.await) else { return };
            let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        };
        tokio::select! { () = both => {}, () = cancel.cancelled() => {} }
    });
    let headers = std::mem::take(response.headers_mut());
    Ok(passed(StatusCode::SWITCHING_PROTOCOLS.as_u16(), headers, futures::stream::empty().boxed()))
}

/// Reads a whole answer, at most `bytes_max` of it.
///
/// # Errors
/// Where it breaks off or is longer.
pub(crate) async fn collected(mut body: ByteStream, bytes_max: usize) -> Result<Bytes, ApiError> {
    let mut all = bytes::BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        if all.len() + chunk.len() > bytes_max {
            return Err(ApiError::internal(CallError::TooLarge(bytes_max)));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}
