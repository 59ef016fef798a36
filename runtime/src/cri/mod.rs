//! The client of a runtime's CRI socket (`runtime.v1`): containerd, CRI-O and whatever else speaks it.

mod errors;
mod image;
mod read;
mod runtime;
mod streaming;
mod upgrade;
mod write;
#[rustfmt::skip]
#[path = "gen/runtime.v1.rs"]
#[allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/cri.proto, which says what the fields are"
)]
mod wire;

use crate::{Error, Reason};
use errors::told;
use std::path::Path;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use wire::image_service_client::ImageServiceClient;
use wire::runtime_service_client::RuntimeServiceClient;

/// The largest message taken from a runtime; upstream's own bound.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// How long the runtime is given to say that it has no events.
const EVENTS_PROBE: Duration = Duration::from_millis(300);

/// How long calls may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CriTimeouts {
    /// To connect to the socket.
    pub connect: Duration,
    /// An ordinary call.
    pub call: Duration,
    /// Making a sandbox, its network included.
    pub sandbox: Duration,
    /// Pulling an image.
    pub pull: Duration,
}

impl Default for CriTimeouts {
    fn default() -> Self {
        CriTimeouts {
            connect: Duration::from_secs(5),
            call: Duration::from_secs(120),
            sandbox: Duration::from_secs(240),
            pull: Duration::from_secs(1800),
        }
    }
}

/// A runtime behind a CRI socket. Cheap to clone; it connects again by itself after the runtime was restarted.
///
/// Exec, attach and port-forward go over SPDY/3.1 to the streaming server that the runtime names, which must be reachable from here.
///
/// ```no_run
/// # async fn f() -> Result<(), kubewright_runtime::Error> {
/// use kubewright_runtime::{ContainerRuntime as _, CriClient};
/// let runtime = CriClient::connect("unix:///run/containerd/containerd.sock").await?;
/// println!("{}", runtime.version().await?.runtime_name);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct CriClient {
    channel: Channel,
    endpoint: String,
    timeouts: CriTimeouts,
    has_events: bool,
}

impl CriClient {
    /// Connects to `unix:///path`, or a plain absolute path.
    ///
    /// # Errors
    /// `Invalid` where it is no such address; `TryAgain` where nobody answers; `Unsupported` where the runtime does not speak `runtime.v1`.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn connect(endpoint: &str) -> Result<Self, Error> {
        CriClient::connect_with(endpoint, CriTimeouts::default()).await
    }

    /// [`CriClient::connect`] with timeouts.
    ///
    /// # Errors
    /// As [`CriClient::connect`].
    pub async fn connect_with(endpoint: &str, timeouts: CriTimeouts) -> Result<Self, Error> {
        let path = socket_path(endpoint)?;
        let url = format!("unix://{path}");
        let invalid = |error| Error::new(Reason::Invalid, format!("CRI endpoint {endpoint:?}: {error}"));
        let transport =
            Endpoint::from_shared(url.clone()).map_err(invalid)?.connect_timeout(timeouts.connect);
        let unreachable = |error: tonic::transport::Error| {
            let why =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Error::new(Reason::TryAgain, format!("the runtime at {url} is not reachable: {why}"))
        };
        let channel = tokio::time::timeout(timeouts.connect, transport.connect()).await;
        let late =
            |_| Error::new(Reason::TryAgain, format!("the runtime at {url} does not take connections"));
        let channel = channel.map_err(late)?.map_err(unreachable)?;
        let mut client = CriClient { channel, endpoint: url, timeouts, has_events: false };
        crate::ContainerRuntime::version(&client).await?;
        client.has_events = client.probe_events().await;
        Ok(client)
    }

    /// The socket's address.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Whether the runtime has events: those that don't say so at once.
    async fn probe_events(&self) -> bool {
        let mut runtime = self.runtime();
        let asked = runtime.get_container_events(wire::GetEventsRequest {});
        match tokio::time::timeout(EVENTS_PROBE, asked).await {
            // Runtimes without events refuse either the call or the stream's first message.
            Ok(Ok(stream)) => {
                let first = tokio::time::timeout(EVENTS_PROBE, stream.into_inner().message()).await;
                !matches!(first, Ok(Err(_)) | Ok(Ok(None)))
            }
            Ok(Err(_)) => false,
            Err(_) => true,
        }
    }
}

impl std::fmt::Debug for CriClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CriClient({})", self.endpoint)
    }
}

fn socket_path(endpoint: &str) -> Result<&str, Error> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if !Path::new(path).is_absolute() || path.contains("://") {
        let words = format!("CRI endpoint {endpoint:?} is neither unix:///path nor an absolute path");
        return Err(Error::new(Reason::Invalid, words));
    }
    Ok(path)
}

/// Waits for an answer no longer than that.
async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("the runtime did not answer within {limit:?}"))),
    }
}

/// An answer that must hold a part, or the runtime is wrong.
fn present<T>(part: Option<T>, what: &str) -> Result<T, Error> {
    part.ok_or_else(|| Error::new(Reason::Failed, format!("the runtime's answer has no {what}")))
}

/// What is gone is as good as removed.
fn gone_is_fine<T: Default>(result: Result<T, Status>) -> Result<T, Error> {
    match result {
        Err(status) if status.code() == Code::NotFound => Ok(T::default()),
        result => result.map_err(told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_are_endpoints() {
        for good in ["unix:///run/x.sock", "/run/x.sock"] {
            assert_eq!(socket_path(good).ok(), Some("/run/x.sock"), "{good}");
        }
        for bad in ["", "unix://", "run/x.sock", "unix://run/x.sock", "tcp://127.0.0.1:1", "http:///x"] {
            assert_eq!(socket_path(bad).map_err(|e| e.reason()), Err(Reason::Invalid), "{bad}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_told() {
        let error = CriClient::connect("/nonexistent/kubewright.sock").await.map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), Reason::TryAgain, "{error}");
        assert!(error.to_string().contains("/nonexistent/kubewright.sock"), "{error}");
    }
}
