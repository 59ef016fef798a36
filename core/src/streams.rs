//! The byte streams of exec, attach and port-forward, free of any protocol: WebSocket, SPDY and CRI are codecs around them.
//!
//! Channels are bounded, so that a slow reader slows the writer instead of filling memory. Dropping a session ends it.

use crate::ApiError;
use bytes::Bytes;
use futures::channel::mpsc;

/// How many frames a stream's channel holds before its writer waits.
pub const FRAMES_MAX: usize = 64;

/// What flows from the client into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes for the standard input.
    Stdin(Bytes),
    /// The client closed its standard input.
    CloseStdin,
    /// The terminal has a new size, in characters.
    Resize {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
}

/// What flows from a container to the client.
#[derive(Clone, Debug, PartialEq)]
pub enum ExecOutput {
    /// Bytes of the standard output (of both, with a terminal).
    Stdout(Bytes),
    /// Bytes of the standard error.
    Stderr(Bytes),
    /// The last frame of an exec: the exit code, or why it could not run.
    Exit(Result<i32, ApiError>),
}

/// A running exec or attach, as its client holds it.
#[derive(Debug)]
pub struct ExecSession {
    /// Towards the container. Dropping it detaches; an exec's process is then ended.
    pub input: mpsc::Sender<ExecInput>,
    /// From the container; ends after [`ExecOutput::Exit`], or when the container side is gone.
    pub output: mpsc::Receiver<ExecOutput>,
}

/// The container's side of an [`ExecSession`].
#[derive(Debug)]
pub struct ExecPeer {
    /// What the client sends; ends when the client is gone.
    pub input: mpsc::Receiver<ExecInput>,
    /// What the client receives.
    pub output: mpsc::Sender<ExecOutput>,
}

impl ExecSession {
    /// A connected pair of both sides.
    pub fn pair() -> (ExecSession, ExecPeer) {
        let (input, peer_input) = mpsc::channel(FRAMES_MAX);
        let (peer_output, output) = mpsc::channel(FRAMES_MAX);
        (ExecSession { input, output }, ExecPeer { input: peer_input, output: peer_output })
    }
}

/// One forwarded connection to a port of a pod, as either side holds it.
///
/// Dropping `sender` is the end of that direction; a reset travels as an `Err`.
#[derive(Debug)]
pub struct PortForwardSession {
    /// Towards the other side.
    pub sender: mpsc::Sender<Result<Bytes, ApiError>>,
    /// From the other side.
    pub receiver: mpsc::Receiver<Result<Bytes, ApiError>>,
}

impl PortForwardSession {
    /// A connected pair of both sides.
    pub fn pair() -> (PortForwardSession, PortForwardSession) {
        let (a, from_a) = mpsc::channel(FRAMES_MAX);
        let (b, from_b) = mpsc::channel(FRAMES_MAX);
        (
            PortForwardSession { sender: a, receiver: from_b },
            PortForwardSession { sender: b, receiver: from_a },
        )
    }
}
