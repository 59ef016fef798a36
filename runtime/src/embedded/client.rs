//! The runtime's side of a shim's socket.

use super::shim::{ShimAnswer, ShimRequest};
use super::socket::{FrameKind, connect_async, read_frame, read_value, write_frame, write_value};
use crate::{Error, Reason};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use kubewright_core::ApiError;
use kubewright_core::streams::{ExecInput, ExecOutput, ExecPeer};
use std::path::Path;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// The longest time for an answer that needs no waiting.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// The longest time for a program to be started in a container.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Asks a shim for something that is done at once.
pub(super) async fn ask(socket: &Path, request: &ShimRequest) -> Result<(), Error> {
    let work = async {
        let mut stream = connect_async(socket).map_err(gone)?;
        write_value(&mut stream, request).await.map_err(gone)?;
        read_value::<ShimAnswer>(&mut stream).await.map_err(gone)
    };
    match tokio::time::timeout(ANSWER_TIME_MAX, work).await.map_err(|_| late())?? {
        ShimAnswer::Failed(sentence) => Err(Error::new(Reason::Failed, sentence)),
        ShimAnswer::Done | ShimAnswer::Ended(_) => Ok(()),
    }
}

/// Waits until a container has ended, or its shim is gone.
pub(super) async fn wait(socket: &Path) -> Result<(), Error> {
    let mut stream = connect_async(socket).map_err(gone)?;
    write_value(&mut stream, &ShimRequest::Wait).await.map_err(gone)?;
    read_value::<ShimAnswer>(&mut stream).await.map_err(gone)?;
    Ok(())
}

fn gone(error: std::io::Error) -> Error {
    Error::new(Reason::FailedPrecondition, format!("the container is not running ({error})"))
}

fn late() -> Error {
    Error::new(Reason::Timeout, "the container's supervisor does not answer")
}

/// An exec or attach that the shim has begun.
pub(super) struct Stream {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
}

/// What comes out of a [`Stream`].
pub(super) enum Event {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Ended(i32),
    Failed(String),
}

impl Stream {
    /// Begins.
    pub(super) async fn open(socket: &Path, request: &ShimRequest) -> Result<Self, Error> {
        let work = async {
            let stream = connect_async(socket).map_err(gone)?;
            let (from, mut to) = stream.into_split();
            let mut from = BufReader::with_capacity(32 * 1024, from);
            write_value(&mut to, request).await.map_err(gone)?;
            match read_value::<ShimAnswer>(&mut from).await.map_err(gone)? {
                ShimAnswer::Failed(sentence) => Err(Error::new(Reason::StartFailed, sentence)),
                ShimAnswer::Done | ShimAnswer::Ended(_) => Ok(Stream { from, to }),
            }
        };
        tokio::time::timeout(START_TIME_MAX, work).await.map_err(|_| late())?
    }

    /// The next thing that comes out.
    pub(super) async fn next(&mut self) -> Event {
        next(&mut self.from).await
    }

    /// Carries a session to its end. Dropping the future ends an exec's program.
    pub(super) async fn carry(mut self, peer: ExecPeer) {
        let (mut input, mut output) = (peer.input, peer.output);
        let inward = async {
            while let Some(frame) = input.next().await {
                let sent = match frame {
                    ExecInput::Stdin(bytes) => write_frame(&mut self.to, FrameKind::Stdin, &bytes).await,
                    ExecInput::CloseStdin => write_frame(&mut self.to, FrameKind::CloseStdin, &[]).await,
                    ExecInput::Resize { width, height } => {
                        let ([a, b], [c, d]) = (width.to_be_bytes(), height.to_be_bytes());
                        write_frame(&mut self.to, FrameKind::Resize, &[a, b, c, d]).await
                    }
                };
                if sent.is_err() {
                    // The end is told by the other direction.
                    std::future::pending::<()>().await;
                }
            }
        };
        let outward = async {
            loop {
                let frame = match next(&mut self.from).await {
                    Event::Stdout(bytes) => ExecOutput::Stdout(Bytes::from(bytes)),
                    Event::Stderr(bytes) => ExecOutput::Stderr(Bytes::from(bytes)),
                    Event::Ended(code) => ExecOutput::Exit(Ok(code)),
                    Event::Failed(sentence) => ExecOutput::Exit(Err(ApiError::internal(sentence))),
                };
                let last = matches!(frame, ExecOutput::Exit(_));
                if output.send(frame).await.is_err() || last {
                    return;
                }
            }
        };
        tokio::select! {
            () = inward => {}
            () = outward => {}
        }
    }
}

async fn next(from: &mut BufReader<OwnedReadHalf>) -> Event {
    match read_frame(from).await {
        Ok(Some((FrameKind::Stdout, bytes))) => Event::Stdout(bytes),
        Ok(Some((FrameKind::Stderr, bytes))) => Event::Stderr(bytes),
        Ok(Some((FrameKind::Json, bytes))) => match serde_json::from_slice(&bytes) {
            Ok(ShimAnswer::Ended(code)) => Event::Ended(code),
            Ok(ShimAnswer::Failed(sentence)) => Event::Failed(sentence),
            _ => Event::Failed("the container's supervisor answered strangely".to_owned()),
        },
        Ok(Some(_)) => Event::Failed("the container's supervisor answered strangely".to_owned()),
        Ok(None) => Event::Failed("the container's supervisor is gone".to_owned()),
        Err(e) => Event::Failed(format!("the container's supervisor is gone: {e}")),
    }
}
