//! exec and attach: the streams of a program on either transport.

use super::protocol::{Protocol, Transport, exit_message, sizes};
use super::websocket::{ChannelReader, ChannelWriter, channels, socket};
use super::{FAREWELL, spdy};
use bytes::{Bytes, BytesMut};
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::OnUpgrade;
use kubewright_core::ApiError;
use kubewright_core::node_api::ExecOptions;
use kubewright_core::spdy::{Event, Role, StreamId, header};
use kubewright_core::streams::{ExecInput, ExecOutput, ExecSession};
use std::time::Duration;
use tokio::sync::watch;

/// How long a client may take to open its streams.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Says in version 5 that a channel, named by the byte after it, is closed.
const CLOSE: u8 = 255;

pub(super) async fn run(upgraded: OnUpgrade, protocol: Protocol, session: ExecSession, options: ExecOptions) {
    let Ok(upgraded) = upgraded.await else { return };
    match protocol.transport {
        Transport::WebSocket => {
            let (reader, writer) = channels(socket(upgraded).await, protocol.coding);
            over_websocket(reader, writer, protocol, session, options).await;
        }
        Transport::Spdy => over_spdy(spdy::raw(upgraded), protocol, session, options).await,
    }
}

/// The exit of a session whose container side ended without telling one.
fn lost() -> Result<i32, ApiError> {
    Err(ApiError::internal("the connection to the container was lost"))
}

/// Runs both halves: the session ends when the client is gone, or a moment after the program's end was sent.
async fn both(read: impl Future<Output = ()>, write: impl Future<Output = ()>) {
    let mut read = std::pin::pin!(read);
    tokio::select! {
        () = read.as_mut() => {}
        () = write => {
            // Closing at once could cut off what the client has not read yet.
            let _ = tokio::time::timeout(FAREWELL, read).await;
        }
    }
}

async fn over_websocket(
    mut reader: ChannelReader,
    mut writer: ChannelWriter,
    protocol: Protocol,
    session: ExecSession,
    options: ExecOptions,
) {
    let ExecSession { mut input, mut output } = session;
    let read = async {
        while let Some((channel, bytes)) = reader.next().await {
            let input_event = match channel {
                STDIN if options.stdin && !bytes.is_empty() => Some(ExecInput::Stdin(bytes)),
                CLOSE if bytes.first() == Some(&STDIN) => Some(ExecInput::CloseStdin),
                RESIZE => sizes(&bytes).0.pop().map(|(width, height)| ExecInput::Resize { width, height }),
                _ => None,
            };
            if let Some(event) = input_event {
                // A program that has ended reads no more; its exit is on the way.
                let _ = input.send(event).await;
            }
        }
    };
    let write = async {
        let lowest = match (options.stdout, options.stderr) {
            (true, _) => STDOUT,
            (false, true) => STDERR,
            _ => ERROR,
        };
        // An empty message tells the client that the streams stand.
        if writer.send(lowest, &[]).await.is_err() {
            return;
        }
        let mut exit = None;
        while let Some(event) = output.next().await {
            let sent = match event {
                ExecOutput::Stdout(bytes) if options.stdout => writer.send(STDOUT, &bytes).await,
                ExecOutput::Stderr(bytes) if options.stderr => writer.send(STDERR, &bytes).await,
                // Clients take a stream that they did not ask for as an error.
                ExecOutput::Stdout(_) | ExecOutput::Stderr(_) => Ok(()),
                ExecOutput::Exit(code) => {
                    exit = Some(code);
                    break;
                }
            };
            if sent.is_err() {
                return;
            }
        }
        let message = exit_message(exit.unwrap_or_else(lost), protocol.version);
        let _ = writer.send(ERROR, &message).await;
        writer.close().await;
    };
    both(read, write).await;
}

/// The streams that the client has opened so far.
#[derive(Clone, Copy, Default)]
struct Streams {
    error: Option<StreamId>,
    stdin: Option<StreamId>,
    stdout: Option<StreamId>,
    stderr: Option<StreamId>,
    resize: Option<StreamId>,
}

impl Streams {
    fn slot(&mut self, kind: &str) -> Option<&mut Option<StreamId>> {
        Some(match kind {
            "error" => &mut self.error,
            "stdin" => &mut self.stdin,
            "stdout" => &mut self.stdout,
            "stderr" => &mut self.stderr,
            "resize" => &mut self.resize,
            _ => return None,
        })
    }

    /// Whether the client has opened all that it will open. It waits for an answer to each, so a program that has ended already must not
    /// end the session before. With a terminal there is no standard error, and from version 3 on its size.
    fn complete(&self, options: &ExecOptions, version: u8) -> bool {
        self.error.is_some()
            && (!options.stdin || self.stdin.is_some())
            && (!options.tty || version < 3 || self.resize.is_some())
            && (!options.stdout || self.stdout.is_some())
            && (!options.stderr || options.tty || self.stderr.is_some())
    }
}

async fn over_spdy(
    transport: (spdy::Reader, spdy::Writer),
    protocol: Protocol,
    session: ExecSession,
    options: ExecOptions,
) {
    let ExecSession { input, output } = session;
    let (events, sender, pump) = spdy::connect(transport, Role::Server);
    let (opened, streams) = watch::channel(Streams::default());
    let read = read_spdy(events, input, opened);
    let write = async {
        let produce = write_spdy(sender, streams, output, protocol.version, &options);
        futures::future::join(produce, pump.run()).await;
    };
    both(read, write).await;
}

async fn read_spdy(
    mut events: spdy::Events,
    mut input: mpsc::Sender<ExecInput>,
    opened: watch::Sender<Streams>,
) {
    let mut streams = Streams::default();
    let mut resize = BytesMut::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Opened { id, headers, fin } => {
                let kind = header(&headers, "streamtype").unwrap_or("").to_owned();
                match streams.slot(&kind) {
                    Some(slot @ None) => *slot = Some(id),
                    _ => {
                        events.reset(id);
                        continue;
                    }
                }
                events.accept(id);
                opened.send_replace(streams);
                if fin && streams.stdin == Some(id) {
                    let _ = input.send(ExecInput::CloseStdin).await;
                }
            }
            Event::Data { id, bytes, fin } if streams.stdin == Some(id) => {
                if !bytes.is_empty() {
                    let _ = input.send(ExecInput::Stdin(bytes)).await;
                }
                if fin {
                    let _ = input.send(ExecInput::CloseStdin).await;
                }
            }
            Event::Data { id, bytes, .. } if streams.resize == Some(id) => {
                resize.extend_from_slice(&bytes);
                let (sizes, read) = sizes(&resize);
                let _ = resize.split_to(read);
                resize.truncate(1024);
                for (width, height) in sizes {
                    let _ = input.send(ExecInput::Resize { width, height }).await;
                }
            }
            Event::Reset { id, .. } if streams.stdin == Some(id) => {
                let _ = input.send(ExecInput::CloseStdin).await;
            }
            _ => {}
        }
    }
}

async fn write_spdy(
    sender: spdy::Sender,
    mut streams: watch::Receiver<Streams>,
    mut output: mpsc::Receiver<ExecOutput>,
    version: u8,
    options: &ExecOptions,
) {
    let ready = streams.wait_for(|s| s.complete(options, version));
    let Ok(Ok(streams)) = tokio::time::timeout(STREAMS_TIMEOUT, ready).await.map(|r| r.map(|s| *s)) else {
        return;
    };
    let mut exit = None;
    while let Some(event) = output.next().await {
        let (id, bytes) = match event {
            ExecOutput::Stdout(bytes) => (streams.stdout, bytes),
            ExecOutput::Stderr(bytes) => (streams.stderr, bytes),
            ExecOutput::Exit(code) => {
                exit = Some(code);
                break;
            }
        };
        if let Some(id) = id
            && !sender.send(id, bytes, false).await
        {
            return;
        }
    }
    for id in [streams.stdout, streams.stderr].into_iter().flatten() {
        sender.send(id, Bytes::new(), true).await;
    }
    if let Some(id) = streams.error {
        let message = exit_message(exit.unwrap_or_else(lost), version);
        sender.send(id, Bytes::from(message), true).await;
    }
    for id in [streams.stdin, streams.resize].into_iter().flatten() {
        sender.send(id, Bytes::new(), true).await;
    }
}
