//! A connection to a runtime's streaming server: HTTP upgraded to SPDY/3.1, with a half for reading and one for writing.

use crate::{Error, Reason};
use bytes::{Bytes, BytesMut};
use kubewright_core::spdy::{Connection, Event, Role, StreamId};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

/// The longest head of an answer, or words of a refusal.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const READ_BYTES: usize = 32 * 1024;

/// What both halves share.
struct Shared {
    connection: Mutex<Connection>,
    /// The codec has something to send that the writer did not put there.
    wants_out: Notify,
}

/// Gives what the runtime sends.
pub(super) struct Reader {
    shared: Arc<Shared>,
    socket: OwnedReadHalf,
}

/// Sends to the runtime.
pub(super) struct Writer {
    shared: Arc<Shared>,
    socket: OwnedWriteHalf,
}

/// Opens the URL that the runtime gave, for this stream protocol.
pub(super) async fn open(url: &str, protocol: &str, limit: Duration) -> Result<(Reader, Writer), Error> {
    let failed =
        |words: String| Error::new(Reason::Failed, format!("the runtime's stream at {url}: {words}"));
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(Error::new(
            Reason::Unsupported,
            format!("the runtime's stream at {url} is not plain HTTP"),
        ));
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n"
    );
    let connect = async {
        let mut stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes()).await?;
        let rest = upgraded(&mut stream).await?;
        Ok::<_, io::Error>((stream, rest))
    };
    let late = |_| Error::new(Reason::Timeout, format!("the runtime's stream at {url} does not open"));
    let opened = tokio::time::timeout(limit, connect).await.map_err(late)?;
    let (stream, rest) = opened.map_err(|error| failed(error.to_string()))?;
    let mut connection = Connection::new(Role::Client);
    connection.receive(&rest);
    let shared = Arc::new(Shared { connection: Mutex::new(connection), wants_out: Notify::new() });
    let (read, write) = stream.into_split();
    Ok((Reader { shared: shared.clone(), socket: read }, Writer { shared, socket: write }))
}

/// Reads the answer's head; gives what came behind it.
async fn upgraded(stream: &mut TcpStream) -> io::Result<BytesMut> {
    let mut head = BytesMut::new();
    let end = loop {
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if head.len() > HEAD_BYTES_MAX || stream.read_buf(&mut head).await? == 0 {
            return Err(io::Error::other("it answers with something that is not HTTP"));
        }
    };
    let mut body = head.split_off(end);
    let first = String::from_utf8_lossy(&head);
    let first = first.lines().next().unwrap_or_default();
    if first.split(' ').nth(1) == Some("101") {
        return Ok(body);
    }
    // The refusal's words are worth a moment.
    let more = async {
        while body.len() < HEAD_BYTES_MAX && stream.read_buf(&mut body).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    let _ = tokio::time::timeout(Duration::from_millis(100), more).await;
    Err(io::Error::other(format!("{first} {}", String::from_utf8_lossy(&body).trim())))
}

impl Reader {
    /// What the runtime did next; `None` once it has hung up.
    ///
    /// # Cancel safety
    /// Nothing is lost where the call is dropped.
    pub(super) async fn next(&mut self) -> Option<Event> {
        let mut bytes = [0; READ_BYTES];
        loop {
            let event = self.shared.connection.lock().next_event();
            self.shared.wants_out.notify_one();
            match event {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "the runtime's stream broke");
                    return None;
                }
            }
            match self.socket.read(&mut bytes).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.shared.connection.lock().receive(&bytes[..count]),
            }
        }
    }
}

impl Writer {
    /// Opens a stream.
    pub(super) async fn open_stream(&mut self, headers: &[(&str, &str)]) -> io::Result<StreamId> {
        let opened = self.shared.connection.lock().open(headers, false);
        let id = opened.map_err(io::Error::other)?;
        self.flush().await?;
        Ok(id)
    }

    /// Sends data on a stream, its last with `fin`.
    pub(super) async fn send(&mut self, id: StreamId, data: &Bytes, fin: bool) -> io::Result<()> {
        let sent = self.shared.connection.lock().send(id, data, fin);
        sent.map_err(io::Error::other)?;
        self.flush().await
    }

    /// Waits until the reader's half has something to answer, and sends it.
    pub(super) async fn answer(&mut self) -> io::Result<()> {
        self.shared.wants_out.notified().await;
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        let output = self.shared.connection.lock().take_output();
        if output.is_empty() {
            return Ok(());
        }
        self.socket.write_all(&output).await
    }
}
