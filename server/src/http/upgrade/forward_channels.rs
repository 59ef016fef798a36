//! Port-forward in WebSocket channels: for the n-th port, channel 2n carries its data and 2n+1 its error.

use super::protocol::Coding;
use super::websocket::{channels, socket};
use bytes::Bytes;
use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::OnUpgrade;
use kubewright_core::request::PortForwarder;
use kubewright_core::streams::{FRAMES_MAX, PortForwardSession};
use tokio::sync::mpsc;

type Output = mpsc::Sender<(u8, Bytes)>;

pub(super) async fn run(upgraded: OnUpgrade, coding: Coding, ports: Vec<u16>, forwarder: PortForwarder) {
    let Ok(upgraded) = upgraded.await else { return };
    let (mut reader, mut writer) = channels(socket(upgraded).await, coding);
    let (output, mut outgoing) = mpsc::channel::<(u8, Bytes)>(FRAMES_MAX);
    let mut inputs = Vec::new();
    let mut connections = Vec::new();
    // Channels are numbered by a byte.
    for (n, port) in (0u8..127).zip(ports) {
        let (input, from_client) = mpsc::channel(FRAMES_MAX);
        inputs.push(input);
        connections.push(connection(n * 2, port, forwarder.clone(), from_client, output.clone()));
    }
    drop(output);
    let read = async {
        while let Some((channel, bytes)) = reader.next().await {
            if let (0, Some(input)) = (channel % 2, inputs.get(usize::from(channel / 2))) {
                let _ = input.send(bytes).await;
            }
        }
    };
    let write = async {
        while let Some((channel, bytes)) = outgoing.recv().await {
            if writer.send(channel, &bytes).await.is_err() {
                return;
            }
        }
        writer.close().await;
    };
    tokio::select! {
        () = read => {}
        _ = async { futures::future::join(join_all(connections), write).await } => {}
    }
}

async fn connection(
    channel: u8,
    port: u16,
    forwarder: PortForwarder,
    mut from_client: mpsc::Receiver<Bytes>,
    output: Output,
) {
    // Both channels begin with the port's number.
    for c in [channel, channel + 1] {
        let number = Bytes::copy_from_slice(&port.to_le_bytes());
        if output.send((c, number)).await.is_err() {
            return;
        }
    }
    let result = match forwarder(port).await {
        Ok(PortForwardSession { mut sender, mut receiver }) => {
            let inward = async {
                while let Some(bytes) = from_client.recv().await {
                    if sender.send(Ok(bytes)).await.is_err() {
                        break;
                    }
                }
                std::future::pending::<()>().await;
            };
            let outward = async {
                while let Some(bytes) = receiver.next().await {
                    if output.send((channel, bytes?)).await.is_err() {
                        break;
                    }
                }
                Ok(())
            };
            tokio::select! { () = inward => Ok(()), result = outward => result }
        }
        Err(e) => Err(e),
    };
    if let Err(e) = result {
        let message = format!("error forwarding port {port}: {e}");
        let _ = output.send((channel + 1, Bytes::from(message))).await;
    }
}
