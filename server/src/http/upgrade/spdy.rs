//! A SPDY connection on a transport: one half reads frames, the other sends them, so that neither waits for the other.

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use futures::{Sink, SinkExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kubewright_core::spdy::{Connection, Event, Role, StreamId};
use parking_lot::Mutex;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};
use tokio_util::codec::{BytesCodec, Framed};

pub(super) type Reader = BoxStream<'static, io::Result<Bytes>>;
pub(super) type Writer = Pin<Box<dyn Sink<Bytes, Error = io::Error> + Send>>;

/// How many pieces wait for the transport before their senders wait too.
const PIECES_MAX: usize = 64;

/// The bytes of an upgraded connection as they are.
pub(super) fn raw(upgraded: Upgraded) -> (Reader, Writer) {
    let (sink, stream) = Framed::new(TokioIo::new(upgraded), BytesCodec::new()).split();
    let read = stream.map(|bytes| bytes.map(bytes::BytesMut::freeze));
    (read.boxed(), Box::pin(sink))
}

/// What is sent on a stream.
pub(super) struct Piece {
    pub(super) id: StreamId,
    pub(super) bytes: Bytes,
    pub(super) fin: bool,
}

/// Sends on the streams of a connection.
#[derive(Clone)]
pub(super) struct Sender(mpsc::Sender<Piece>);

impl Sender {
    /// Gives `false` once the connection is gone.
    pub(super) async fn send(&self, id: StreamId, bytes: Bytes, fin: bool) -> bool {
        self.0.send(Piece { id, bytes, fin }).await.is_ok()
    }
}

/// Receives what the peer does on a connection.
pub(super) struct Events {
    link: Arc<Link>,
    reader: Reader,
}

/// The half that writes; it has to be polled for anything to be sent.
pub(super) struct Pump {
    link: Arc<Link>,
    pieces: mpsc::Receiver<Piece>,
    writer: Writer,
}

struct Link {
    connection: Mutex<Connection>,
    /// The connection itself has something to send: a reply, an answered ping.
    wake: Notify,
}

pub(super) fn connect((reader, writer): (Reader, Writer), role: Role) -> (Events, Sender, Pump) {
    let link = Arc::new(Link { connection: Mutex::new(Connection::new(role)), wake: Notify::new() });
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    (Events { link: link.clone(), reader }, Sender(sender), Pump { link, pieces, writer })
}

impl Events {
    /// The next event; `None` when the connection is over.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            let event = self.link.connection.lock().next_event();
            // Looking at frames may have made answers.
            self.link.wake.notify_one();
            match event {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(e) => {
                    tracing::debug!(error = %e, "a streaming connection broke");
                    return None;
                }
            }
            let bytes = self.reader.next().await?.ok()?;
            self.link.connection.lock().receive(&bytes);
        }
    }

    /// Accepts a stream.
    pub(super) fn accept(&self, id: StreamId) {
        // It fails only for a stream that is closed again already.
        let _ = self.link.connection.lock().reply(id, &[], false);
        self.link.wake.notify_one();
    }

    /// Gives a stream up.
    pub(super) fn reset(&self, id: StreamId) {
        const CANCEL: u32 = 5;
        self.link.connection.lock().reset(id, CANCEL);
        self.link.wake.notify_one();
    }
}

impl Pump {
    /// Sends until every sender is dropped or the transport fails, then closes the transport's sending side.
    pub(super) async fn run(mut self) {
        loop {
            let piece = tokio::select! {
                piece = self.pieces.recv() => piece.map(Some),
                () = self.link.wake.notified() => Some(None),
            };
            let Some(piece) = piece else { break };
            if let Some(piece) = piece {
                // A stream that the peer gave up takes nothing more.
                let _ = self.link.connection.lock().send(piece.id, &piece.bytes, piece.fin);
            }
            if self.flush().await.is_err() {
                return;
            }
        }
        let _ = self.flush().await;
        let _ = self.writer.close().await;
    }

    async fn flush(&mut self) -> io::Result<()> {
        let bytes = self.link.connection.lock().take_output();
        if bytes.is_empty() { Ok(()) } else { self.writer.send(bytes).await }
    }
}
