//! Port-forward in SPDY streams, directly or tunnelled through a WebSocket: a pair of streams for each connection.

use super::protocol::Transport;
use super::{spdy, websocket};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::OnUpgrade;
use kubewright_core::ApiError;
use kubewright_core::request::PortForwarder;
use kubewright_core::spdy::{Event, Headers, Role, StreamId, header};
use kubewright_core::streams::{FRAMES_MAX, PortForwardSession};
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub(super) async fn run(upgraded: OnUpgrade, transport: Transport, forwarder: PortForwarder) {
    let Ok(upgraded) = upgraded.await else { return };
    let transport = match transport {
        Transport::Spdy => spdy::raw(upgraded),
        Transport::WebSocket => websocket::tunnel(websocket::socket(upgraded).await),
    };
    let (events, sender, pump) = spdy::connect(transport, Role::Server);
    let read = Forwarding { events, sender, forwarder, pairs: HashMap::new(), inputs: HashMap::new() }.run();
    tokio::select! { () = read => {}, () = pump.run() => {} }
}

/// The streams of one connection, until both are there.
#[derive(Default)]
struct Pair {
    error: Option<StreamId>,
    data: Option<StreamId>,
}

type Input = mpsc::Sender<Bytes>;

struct Forwarding {
    events: spdy::Events,
    sender: spdy::Sender,
    forwarder: PortForwarder,
    pairs: HashMap<String, Pair>,
    /// Where the data of a stream goes; taken out when the client ends it.
    inputs: HashMap<StreamId, Input>,
}

impl Forwarding {
    async fn run(mut self) {
        let mut connections = JoinSet::new();
        while let Some(event) = self.events.next().await {
            // Ended connections are taken out as others come.
            while connections.try_join_next().is_some() {}
            match event {
                Event::Opened { id, headers, .. } => self.opened(id, &headers, &mut connections),
                Event::Data { id, bytes, fin } => {
                    if let Some(input) = self.inputs.get(&id)
                        && !bytes.is_empty()
                    {
                        // It fails when the pod's side is gone; the client is told on the other streams.
                        let _ = input.send(bytes).await;
                    }
                    if fin {
                        self.inputs.remove(&id);
                    }
                }
                Event::Reset { id, .. } => drop(self.inputs.remove(&id)),
                _ => {}
            }
        }
    }

    fn opened(&mut self, id: StreamId, headers: &Headers, connections: &mut JoinSet<()>) {
        let port = header(headers, "port").and_then(|p| p.parse::<u16>().ok()).filter(|p| *p > 0);
        let kind = header(headers, "streamtype").unwrap_or("");
        let (Some(port), true) = (port, matches!(kind, "error" | "data")) else {
            return self.events.reset(id);
        };
        // Old clients send no number and use one connection at a time.
        let request = header(headers, "requestid").unwrap_or("").to_owned();
        self.events.accept(id);
        let pair = self.pairs.entry(request.clone()).or_default();
        match kind {
            "error" => pair.error = Some(id),
            _ => pair.data = Some(id),
        }
        if let Pair { error: Some(error), data: Some(data) } = *pair {
            self.pairs.remove(&request);
            let (input, from_client) = mpsc::channel(FRAMES_MAX);
            self.inputs.insert(data, input);
            let (sender, opening) = (self.sender.clone(), (self.forwarder)(port));
            connections.spawn(async move {
                let result = match opening.await {
                    Ok(session) => forward(session, from_client, &sender, data).await,
                    Err(e) => Err(e),
                };
                let message = result.err().map(|e| format!("error forwarding port {port}: {e}"));
                sender.send(error, Bytes::from(message.unwrap_or_default()), true).await;
                sender.send(data, Bytes::new(), true).await;
            });
        }
    }
}

/// Carries the bytes of one connection; ends when the pod's side does.
async fn forward(
    session: PortForwardSession,
    mut from_client: mpsc::Receiver<Bytes>,
    sender: &spdy::Sender,
    data: StreamId,
) -> Result<(), ApiError> {
    let PortForwardSession { sender: mut to_pod, receiver: mut from_pod } = session;
    let inward = async {
        while let Some(bytes) = from_client.recv().await {
            if to_pod.send(Ok(bytes)).await.is_err() {
                break;
            }
        }
        drop(to_pod);
        std::future::pending::<()>().await;
    };
    let outward = async {
        while let Some(bytes) = from_pod.next().await {
            if !sender.send(data, bytes?, false).await {
                break;
            }
        }
        Ok(())
    };
    tokio::select! { () = inward => Ok(()), result = outward => result }
}
