//! Exec, attach and port-forward of a fake runtime: sessions that answer by themselves.

use super::behaviour::ExecCall;
use super::{FakeRuntime, Inner};
use crate::{Error, Reason};
use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use kubewright_core::streams::{ExecInput, ExecOutput, ExecPeer, ExecSession, PortForwardSession};
use std::future::Future;
use std::sync::Arc;

/// More standard input than this is not kept.
const STDIN_BYTES_MAX: usize = 1024 * 1024;

impl FakeRuntime {
    fn drive(&self, session: impl Future<Output = ()> + Send + 'static) {
        let stop = self.inner.stop.clone();
        self.inner.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = session => {}
            }
        });
    }

    pub(super) fn check_running(&self, id: &str) -> Result<(), Error> {
        let now = self.inner.now();
        if self.inner.state.lock().container(id)?.runs(now) {
            return Ok(());
        }
        Err(Error::new(Reason::FailedPrecondition, format!("container {id} is not running")))
    }

    pub(super) fn exec_session(&self, id: &str, command: Vec<String>, stdin: bool) -> ExecSession {
        let (session, peer) = ExecSession::pair();
        let call = ExecCall { container_id: id.to_owned(), command, stdin: Vec::new() };
        self.drive(run(Arc::clone(&self.inner), call, peer, stdin));
        session
    }

    /// Input comes back as output, until the client goes or the container ends.
    pub(super) fn attach_session(&self, id: &str) -> ExecSession {
        let (session, mut peer) = ExecSession::pair();
        let (mut changed, runtime, id) = (self.inner.changed.subscribe(), self.clone(), id.to_owned());
        self.drive(async move {
            loop {
                let input = tokio::select! {
                    input = peer.input.next() => input,
                    _ = changed.changed() => {
                        if runtime.check_running(&id).is_err() { return }
                        continue;
                    }
                };
                match input {
                    Some(ExecInput::Stdin(bytes)) => {
                        if peer.output.send(ExecOutput::Stdout(bytes)).await.is_err() {
                            return;
                        }
                    }
                    Some(ExecInput::CloseStdin | ExecInput::Resize { .. }) => {}
                    None => return,
                }
            }
        });
        session
    }

    /// An echo server answers on every port.
    pub(super) fn forward_session(&self) -> PortForwardSession {
        let (session, peer) = PortForwardSession::pair();
        self.drive(async move {
            let (mut sender, mut receiver) = (peer.sender, peer.receiver);
            while let Some(Ok(bytes)) = receiver.next().await {
                if sender.send(Ok(bytes)).await.is_err() {
                    return;
                }
            }
        });
        session
    }
}

async fn run(inner: Arc<Inner>, mut call: ExecCall, mut peer: ExecPeer, stdin: bool) {
    while stdin && call.stdin.len() < STDIN_BYTES_MAX {
        match peer.input.next().await {
            Some(ExecInput::Stdin(bytes)) => call.stdin.extend_from_slice(&bytes),
            Some(ExecInput::Resize { .. }) => {}
            Some(ExecInput::CloseStdin) | None => break,
        }
    }
    let result = inner.config.run(&call);
    let frames = [
        ExecOutput::Stdout(Bytes::from(result.stdout)),
        ExecOutput::Stderr(Bytes::from(result.stderr)),
        ExecOutput::Exit(Ok(result.exit_code)),
    ];
    for frame in frames {
        if !is_empty(&frame) && send(&mut peer.output, frame).await.is_err() {
            return;
        }
    }
}

async fn send(output: &mut mpsc::Sender<ExecOutput>, frame: ExecOutput) -> Result<(), mpsc::SendError> {
    output.send(frame).await
}

fn is_empty(frame: &ExecOutput) -> bool {
    matches!(frame, ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes) if bytes.is_empty())
}
