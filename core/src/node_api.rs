//! The port through which the API server reaches a node agent: logs, exec, attach and port-forward of the node's pods.
//!
//! Upstream's API server speaks HTTP to the kubelet here; in one process the agent is called directly.

use crate::ApiError;
use crate::streams::{ExecSession, PortForwardSession};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;

/// The pod (and the container in it) that a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRef {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid, so that a successor of the same name is not mistaken for it.
    pub uid: String,
    /// The container's name; already chosen by the server.
    pub container: String,
}

/// `PodLogOptions` of core/v1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on as lines come.
    pub follow: bool,
    /// The log of the container's previous instance.
    pub previous: bool,
    /// Only lines at or after this time.
    pub since: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// At most this many bytes.
    pub limit_bytes: Option<u64>,
    /// `Stdout`, `Stderr` or both (`None` or `All`).
    pub stream: Option<String>,
}

/// `PodExecOptions` and `PodAttachOptions` of core/v1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Program and arguments; empty for attach.
    pub command: Vec<String>,
    /// Connect the standard input.
    pub stdin: bool,
    /// Connect the standard output.
    pub stdout: bool,
    /// Connect the standard error.
    pub stderr: bool,
    /// Give it a terminal.
    pub tty: bool,
}

/// What a node agent offers to the API server.
pub trait NodeApi: Send + Sync + 'static {
    /// The log of a container as text.
    ///
    /// # Errors
    /// 404 for an unknown pod or container, 400 where it has no log yet (upstream's `container "c" in pod "p" is waiting to start: ...`).
    ///
    /// # Cancel safety
    /// Dropping the future or the stream ends the reading and changes nothing.
    fn logs(
        &self,
        target: ContainerRef,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Bytes, ApiError>>, ApiError>>;

    /// Runs a program in a container.
    ///
    /// # Errors
    /// 404 for an unknown pod or container, 400/500 where it does not run.
    ///
    /// # Cancel safety
    /// Dropping the session ends the program.
    fn exec(
        &self,
        target: ContainerRef,
        options: ExecOptions,
    ) -> BoxFuture<'_, Result<ExecSession, ApiError>>;

    /// Connects to the streams of a container's main process.
    ///
    /// # Errors
    /// As [`NodeApi::exec`].
    ///
    /// # Cancel safety
    /// Dropping the session detaches; the process goes on.
    fn attach(
        &self,
        target: ContainerRef,
        options: ExecOptions,
    ) -> BoxFuture<'_, Result<ExecSession, ApiError>>;

    /// Opens one connection to a TCP port inside the pod; `target.container` is empty.
    ///
    /// # Errors
    /// 404 for an unknown pod, 500 where nothing listens.
    ///
    /// # Cancel safety
    /// Dropping the session closes the connection.
    fn port_forward(
        &self,
        target: ContainerRef,
        port: u16,
    ) -> BoxFuture<'_, Result<PortForwardSession, ApiError>>;
}
