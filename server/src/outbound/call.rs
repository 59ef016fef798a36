//! Single calls: a document posted and its answer, or a request passed on as it is.

use super::{CallError, Client};
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::time::Duration;

/// The body of a request.
pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

const AGENT: HeaderValue = HeaderValue::from_static("kube-apiserver-admission");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// A body that is all there.
pub(crate) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

/// A body that comes in chunks.
pub(crate) fn streamed(chunks: BoxStream<'static, Result<Bytes, std::io::Error>>) -> Body {
    // The stream is only ever polled by one connection.
    let frames = sync_wrapper(chunks).map(|chunk| chunk.map(Frame::data));
    BodyExt::boxed(StreamBody::new(frames))
}

/// Makes a stream shareable, which it never is, because a boxed body asks for it.
fn sync_wrapper(
    chunks: BoxStream<'static, Result<Bytes, std::io::Error>>,
) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send + Sync {
    let chunks = parking_lot::Mutex::new(chunks);
    futures::stream::poll_fn(move |cx| chunks.lock().poll_next_unpin(cx))
}

impl Client {
    /// The address of a path there, for messages.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Sends a request on; `path` has its leading slash, and its query. The answer's head is waited for, its body is not read.
    ///
    /// # Errors
    /// Where there is no answer.
    ///
    /// # Cancel safety
    /// A dropped call may have arrived.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
        path: &str,
    ) -> Result<Response<Incoming>, CallError> {
        let uri = self.url(path).parse();
        *request.uri_mut() = uri.map_err(|e| CallError::Unusable(format!("the address {path:?}: {e}")))?;
        self.http.request(request).await.map_err(|e| CallError::of_client(&e))
    }

    /// Posts a JSON document and reads the answer, at most `bytes_max` of it, within `limit`.
    ///
    /// # Errors
    /// Where there is no whole answer in time; an answer of any status is one.
    ///
    /// # Cancel safety
    /// A dropped call may have arrived.
    pub(crate) async fn post(
        &self,
        path: &str,
        document: Bytes,
        bearer: Option<&str>,
        limit: Duration,
        bytes_max: usize,
    ) -> Result<Answer, CallError> {
        let mut request = Request::new(document);
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(CONTENT_TYPE, JSON);
        self.whole(request, path, bearer, limit, bytes_max).await
    }

    /// Gets a document, with the bounds of [`Client::post`].
    ///
    /// # Errors
    /// As [`Client::post`].
    ///
    /// # Cancel safety
    /// Nothing but reading happens.
    pub(crate) async fn get(
        &self,
        path: &str,
        limit: Duration,
        bytes_max: usize,
    ) -> Result<Answer, CallError> {
        self.get_as(path, HeaderMap::new(), limit, bytes_max).await
    }

    /// [`Client::get`] with headers.
    ///
    /// # Errors
    /// As [`Client::post`].
    ///
    /// # Cancel safety
    /// Nothing but reading happens.
    pub(crate) async fn get_as(
        &self,
        path: &str,
        headers: HeaderMap,
        limit: Duration,
        bytes_max: usize,
    ) -> Result<Answer, CallError> {
        let mut request = Request::new(Bytes::new());
        *request.headers_mut() = headers;
        self.whole(request, path, None, limit, bytes_max).await
    }

    async fn whole(
        &self,
        mut request: Request<Bytes>,
        path: &str,
        bearer: Option<&str>,
        limit: Duration,
        bytes_max: usize,
    ) -> Result<Answer, CallError> {
        let headers = request.headers_mut();
        headers.entry(ACCEPT).or_insert(JSON);
        headers.insert(USER_AGENT, AGENT);
        if let Some(token) = bearer {
            let value = HeaderValue::try_from(format!("Bearer {token}"));
            let value = value.map_err(|_| CallError::Unusable("the token is no header".to_owned()))?;
            headers.insert(AUTHORIZATION, value);
        }
        let (head, document) = request.into_parts();
        let once = async || {
            let request = Request::from_parts(head.clone(), full(document.clone()));
            let response = self.send(request, path).await?;
            let status = response.status().as_u16();
            Ok(Answer { status, body: read_bounded(response.into_body(), bytes_max).await? })
        };
        let work = async {
            match once().await {
                // A kept connection that the other side closed at this moment; what is called here may be called twice.
                Err(CallError::Broken(_)) => once().await,
                other => other,
            }
        };
        tokio::time::timeout(limit, work).await.map_err(|_| CallError::Timeout)?
    }
}

/// Reads a body whole.
///
/// # Errors
/// Where it breaks off or is longer than `bytes_max`.
pub(crate) async fn read_bounded(mut body: Incoming, bytes_max: usize) -> Result<Bytes, CallError> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| CallError::of_client(&e))?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + data.len() > bytes_max {
            return Err(CallError::TooLarge(bytes_max));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// What upstream's client makes of an answer that is no success.
pub(crate) fn refused(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let text: String = text.trim().chars().take(2048).collect();
    let said = serde_json::from_str::<serde_json::Value>(&text).ok();
    let status =
        said.filter(|s| s["kind"] == "Status").and_then(|s| s["message"].as_str().map(str::to_owned));
    match (status, answer.status) {
        (Some(message), _) => message,
        (None, 401) => "the server has asked for the client to provide credentials".to_owned(),
        (None, 403) => "forbidden".to_owned(),
        (None, 404) => "the server could not find the requested resource".to_owned(),
        (None, 503) => format!("the server is currently unable to handle the request: {text}"),
        (None, 500..) => {
            format!("an error on the server ({text:?}) has prevented the request from succeeding")
        }
        (None, code) => {
            format!("the server responded with the status code {code} but did not return more information")
        }
    }
}
