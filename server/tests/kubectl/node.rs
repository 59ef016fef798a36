//! A node whose containers know a handful of programs, and whose ports answer in capitals.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use futures::{FutureExt, SinkExt};
use kubewright_core::ApiError;
use kubewright_core::node_api::{ContainerRef, ExecOptions, LogOptions, NodeApi};
use kubewright_core::streams::{ExecInput, ExecOutput, ExecPeer, ExecSession, PortForwardSession};

pub(crate) struct Echo;

async fn program(command: Vec<String>, mut peer: ExecPeer) {
    let exit = match command.first().map(String::as_str) {
        Some("echo") => {
            let line = format!("{}\n", command[1..].join(" "));
            let _ = peer.output.send(ExecOutput::Stdout(Bytes::from(line))).await;
            Ok(0)
        }
        Some("complain") => {
            let line = Bytes::from_static(b"to the error output\n");
            let _ = peer.output.send(ExecOutput::Stderr(line)).await;
            Ok(0)
        }
        Some("exit") => Ok(command[1].parse().unwrap()),
        Some("cat") => {
            while let Some(ExecInput::Stdin(bytes)) = peer.input.next().await {
                let _ = peer.output.send(ExecOutput::Stdout(bytes)).await;
            }
            Ok(0)
        }
        _ => Err(ApiError::internal("no such program")),
    };
    let _ = peer.output.send(ExecOutput::Exit(exit)).await;
}

async fn shout(mut session: PortForwardSession) {
    while let Some(Ok(bytes)) = session.receiver.next().await {
        if session.sender.send(Ok(Bytes::from(bytes.to_ascii_uppercase()))).await.is_err() {
            return;
        }
    }
}

impl NodeApi for Echo {
    fn logs(
        &self,
        _: ContainerRef,
        _: LogOptions,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Bytes, ApiError>>, ApiError>> {
        let lines = futures::stream::iter([Ok(Bytes::from_static(b"a line\n"))]).boxed();
        std::future::ready(Ok(lines)).boxed()
    }

    fn exec(&self, _: ContainerRef, options: ExecOptions) -> BoxFuture<'_, Result<ExecSession, ApiError>> {
        let (session, peer) = ExecSession::pair();
        tokio::spawn(program(options.command, peer));
        std::future::ready(Ok(session)).boxed()
    }

    fn attach(&self, _: ContainerRef, _: ExecOptions) -> BoxFuture<'_, Result<ExecSession, ApiError>> {
        std::future::ready(Err(ApiError::not_implemented("attach"))).boxed()
    }

    fn port_forward(&self, _: ContainerRef, _: u16) -> BoxFuture<'_, Result<PortForwardSession, ApiError>> {
        let (session, peer) = PortForwardSession::pair();
        tokio::spawn(shout(peer));
        std::future::ready(Ok(session)).boxed()
    }
}
