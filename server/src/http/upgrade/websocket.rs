//! Channels in WebSocket messages: the first byte (or the first digit, in base64) says which.

use super::protocol::Coding;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::SinkExt;
use futures::stream::{SplitSink, SplitStream, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::io;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A message may have this many bytes; clients send 32 KiB at once.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) async fn socket(upgraded: Upgraded) -> Socket {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

/// The channels that the client sends on.
pub(super) struct ChannelReader {
    stream: SplitStream<Socket>,
    coding: Coding,
}

/// The channels that the client receives on.
pub(super) struct ChannelWriter {
    sink: SplitSink<Socket, Message>,
    coding: Coding,
}

pub(super) fn channels(socket: Socket, coding: Coding) -> (ChannelReader, ChannelWriter) {
    let (sink, stream) = socket.split();
    (ChannelReader { stream, coding }, ChannelWriter { sink, coding })
}

impl ChannelReader {
    /// The next bytes and their channel; `None` when the client is gone or sends nonsense.
    pub(super) async fn next(&mut self) -> Option<(u8, Bytes)> {
        loop {
            let bytes = match self.stream.next().await? {
                Ok(Message::Binary(bytes)) => bytes,
                Ok(Message::Text(text)) => Bytes::from(text),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => continue,
            };
            let first = *bytes.first()?;
            let rest = bytes.slice(1..);
            return Some(match self.coding {
                Coding::Binary => (first, rest),
                Coding::Base64 => (first.checked_sub(b'0')?, STANDARD.decode(&rest).ok()?.into()),
            });
        }
    }
}

impl ChannelWriter {
    pub(super) async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), Error> {
        let message = match self.coding {
            Coding::Binary => {
                let mut out = BytesMut::with_capacity(bytes.len() + 1);
                out.put_u8(channel);
                out.put_slice(bytes);
                Message::Binary(out.freeze())
            }
            Coding::Base64 => {
                let mut text = String::from(char::from(b'0' + channel));
                STANDARD.encode_string(bytes, &mut text);
                Message::text(text)
            }
        };
        self.sink.send(message).await
    }

    pub(super) async fn close(&mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        // The client may be gone already.
        let _ = self.sink.send(Message::Close(Some(frame))).await;
        let _ = self.sink.flush().await;
    }
}

/// The bytes of a stream tunnelled in binary messages.
pub(super) fn tunnel(socket: Socket) -> (super::spdy::Reader, super::spdy::Writer) {
    let (sink, stream) = socket.split();
    let read = stream.filter_map(|message| async {
        match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(Message::Close(_)) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => None,
            Err(e) => Some(Err(io::Error::other(e))),
        }
    });
    let write = sink
        .sink_map_err(io::Error::other)
        .with(|bytes: Bytes| std::future::ready(Ok::<_, io::Error>(Message::Binary(bytes))));
    (read.boxed(), Box::pin(write))
}
