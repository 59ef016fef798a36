//! Port-forward: for each connection a WebSocket that tunnels a SPDY connection with one pair of streams.

use super::Shared;
use super::socket::Socket;
use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use kubewright_core::request::PortForwarder;
use kubewright_core::spdy::{Connection, Event, Role, StreamId};
use kubewright_core::streams::PortForwardSession;
use kubewright_core::{ApiError, ApiRequest, ApiResponse, ResponseBody};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;

/// The longest message of the error stream.
const ERROR_BYTES_MAX: usize = 64 * 1024;

pub(super) async fn forwarder(shared: Arc<Shared>, request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let request = request.clone();
    let forwarder: PortForwarder = Arc::new(move |port| {
        let (shared, request) = (shared.clone(), request.clone());
        Box::pin(async move {
            let socket = shared.upgrade(&request, "SPDY/3.1+portforward.k8s.io").await?;
            let (session, peer) = PortForwardSession::pair();
            let tunnel = Tunnel::open(port)?;
            // The task ends with the session or with the server's side.
            tokio::spawn(tunnel.carry(socket, peer));
            Ok(session)
        })
    });
    Ok(ApiResponse::new(101, ResponseBody::PortForward(forwarder)))
}

struct Tunnel {
    connection: Mutex<Connection>,
    wake: Notify,
    error: StreamId,
    data: StreamId,
}

impl Tunnel {
    fn open(port: u16) -> Result<Self, ApiError> {
        let mut connection = Connection::new(Role::Client);
        let port = port.to_string();
        let mut open = |kind: &str| {
            let headers = [("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
            connection.open(&headers, false).map_err(ApiError::internal)
        };
        let (error, data) = (open("error")?, open("data")?);
        // The client says nothing on the error stream.
        connection.send(error, b"", true).map_err(ApiError::internal)?;
        Ok(Tunnel { connection: Mutex::new(connection), wake: Notify::new(), error, data })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Connection) -> T) -> T {
        f(&mut self.connection.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn carry(self, socket: Socket, peer: PortForwardSession) {
        let (mut sink, mut stream) = socket.split();
        let PortForwardSession { sender, receiver } = peer;
        let mut failed = sender.clone();
        tokio::select! {
            () = self.send(&mut sink, receiver) => {}
            result = self.receive(&mut stream, sender) => {
                if let Err(e) = result {
                    let _ = failed.send(Err(e)).await;
                }
            }
        }
        drop(failed);
        // The server may be gone already.
        let _ = sink.close().await;
    }

    /// Sends what the caller gives, and what the connection itself has to say.
    async fn send(
        &self,
        sink: &mut SplitSink<Socket, Message>,
        mut from: futures::channel::mpsc::Receiver<Result<Bytes, ApiError>>,
    ) {
        let mut open = true;
        loop {
            let output = self.with(Connection::take_output);
            if !output.is_empty() && sink.send(Message::Binary(output)).await.is_err() {
                return;
            }
            tokio::select! {
                bytes = from.next(), if open => {
                    open = matches!(bytes, Some(Ok(_)));
                    let bytes = bytes.and_then(Result::ok).unwrap_or_default();
                    // A stream that the server closed takes nothing more.
                    let _ = self.with(|c| c.send(self.data, &bytes, !open));
                }
                () = self.wake.notified() => {}
            }
        }
    }

    async fn receive(
        &self,
        stream: &mut SplitStream<Socket>,
        mut to: futures::channel::mpsc::Sender<Result<Bytes, ApiError>>,
    ) -> Result<(), ApiError> {
        let mut message = BytesMut::new();
        loop {
            let event = self.with(Connection::next_event).map_err(ApiError::internal)?;
            self.wake.notify_one();
            match event {
                Some(Event::Data { id, bytes, fin }) if id == self.data => {
                    if !bytes.is_empty() && to.send(Ok(bytes)).await.is_err() {
                        return Ok(());
                    }
                    if fin {
                        return Ok(());
                    }
                }
                Some(Event::Data { id, bytes, fin }) if id == self.error => {
                    message.extend_from_slice(&bytes);
                    if (fin && !message.is_empty()) || message.len() > ERROR_BYTES_MAX {
                        return Err(ApiError::internal(String::from_utf8_lossy(&message)));
                    }
                }
                Some(Event::Reset { .. }) => {
                    return Err(ApiError::internal("the server gave the connection up"));
                }
                Some(_) => {}
                None => match stream.next().await {
                    Some(Ok(Message::Binary(bytes))) => self.with(|c| c.receive(&bytes)),
                    Some(Ok(Message::Close(_))) | None => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(e)) => return Err(ApiError::unavailable(e.to_string())),
                },
            }
        }
    }
}
