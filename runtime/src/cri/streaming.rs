//! Exec, attach and port-forward: the runtime's streams on one side, the port's sessions on the other.

use super::upgrade::{Reader, Writer, open};
use crate::port::StreamOptions;
use crate::{Error, Reason};
use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _};
use kubewright_core::ApiError;
use kubewright_core::spdy::{Event, StreamId};
use kubewright_core::streams::{ExecInput, ExecOutput, ExecPeer, ExecSession, PortForwardSession};
use std::io;
use std::time::Duration;

/// The newest protocols that every runtime speaks.
const REMOTE_COMMAND: &str = "v4.channel.k8s.io";
const PORT_FORWARD: &str = "portforward.k8s.io";

/// How often it is looked whether somebody still wants what comes.
const GONE_PAUSE: Duration = Duration::from_millis(200);

/// The streams of an exec or attach, as far as they are wanted.
struct Streams {
    error: StreamId,
    stdin: Option<StreamId>,
    stdout: Option<StreamId>,
    stderr: Option<StreamId>,
    resize: Option<StreamId>,
}

impl Streams {
    async fn open(writer: &mut Writer, options: &StreamOptions) -> io::Result<Streams> {
        let error = writer.open_stream(&[("streamtype", "error")]).await?;
        // Nothing is ever sent on it.
        writer.send(error, &Bytes::new(), true).await?;
        let mut streams = Streams { error, stdin: None, stdout: None, stderr: None, resize: None };
        let stderr = options.stderr && !options.tty;
        for (wanted, name, stream) in [
            (options.stdin, "stdin", &mut streams.stdin),
            (options.stdout, "stdout", &mut streams.stdout),
            (stderr, "stderr", &mut streams.stderr),
            (options.tty, "resize", &mut streams.resize),
        ] {
            if wanted {
                *stream = Some(writer.open_stream(&[("streamtype", name)]).await?);
            }
        }
        Ok(streams)
    }
}

/// Connects to an exec or attach. The task that pumps it ends with the session, or with the connection.
pub(super) async fn session(
    url: &str,
    options: &StreamOptions,
    limit: Duration,
) -> Result<ExecSession, Error> {
    let (reader, mut writer) = open(url, REMOTE_COMMAND, limit).await?;
    let streams = Streams::open(&mut writer, options).await.map_err(|error| broken(&error))?;
    let (session, peer) = ExecSession::pair();
    tokio::spawn(async move {
        let ExecPeer { input, output } = peer;
        tokio::select! {
            () = receive_output(reader, &streams, output) => {}
            () = send_input(writer, &streams, input) => {}
        }
    });
    Ok(session)
}

fn broken(error: &io::Error) -> Error {
    Error::new(Reason::Failed, format!("the runtime's stream broke: {error}"))
}

/// Hands the input on until the client drops it.
async fn send_input(mut writer: Writer, streams: &Streams, mut input: mpsc::Receiver<ExecInput>) {
    loop {
        let sent = tokio::select! {
            next = input.next() => match next {
                None => return,
                Some(next) => send_one(&mut writer, streams, next).await,
            },
            answered = writer.answer() => answered,
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "input for a container is dropped");
            // What the container said before may still be under way.
            return futures::future::pending().await;
        }
    }
}

async fn send_one(writer: &mut Writer, streams: &Streams, input: ExecInput) -> io::Result<()> {
    match (input, streams.stdin, streams.resize) {
        (ExecInput::Stdin(data), Some(stdin), _) => writer.send(stdin, &data, false).await,
        (ExecInput::CloseStdin, Some(stdin), _) => writer.send(stdin, &Bytes::new(), true).await,
        (ExecInput::Resize { width, height }, _, Some(resize)) => {
            let size = serde_json::json!({ "Width": width, "Height": height }).to_string();
            writer.send(resize, &Bytes::from(size), false).await
        }
        // A stream that was not asked for.
        _ => Ok(()),
    }
}

async fn receive_output(mut reader: Reader, streams: &Streams, mut output: mpsc::Sender<ExecOutput>) {
    let mut status = Vec::new();
    while let Some(event) = reader.next().await {
        let (id, bytes, fin) = match event {
            Event::Data { id, bytes, fin } => (id, bytes, fin),
            Event::Reset { id, .. } => (id, Bytes::new(), true),
            _ => continue,
        };
        if id == streams.error {
            status.extend_from_slice(&bytes);
            if fin {
                // Nobody may be there to hear it.
                let _ = output.send(ExecOutput::Exit(exit(&status))).await;
                return;
            }
            continue;
        }
        let frame = if Some(id) == streams.stderr { ExecOutput::Stderr } else { ExecOutput::Stdout };
        if !bytes.is_empty() && output.send(frame(bytes)).await.is_err() {
            return;
        }
    }
    let lost = ApiError::internal("the runtime ended the stream without an exit code");
    // Nobody may be there to hear it.
    let _ = output.send(ExecOutput::Exit(if status.is_empty() { Err(lost) } else { exit(&status) })).await;
}

/// The exit code out of the status that ends an exec; none means success.
fn exit(data: &[u8]) -> Result<i32, ApiError> {
    if data.is_empty() {
        return Ok(0);
    }
    let Ok(status) = serde_json::from_slice::<serde_json::Value>(data) else {
        return Err(ApiError::internal(String::from_utf8_lossy(data)));
    };
    if status["status"] == "Success" {
        return Ok(0);
    }
    let causes = status["details"]["causes"].as_array();
    let code = causes.into_iter().flatten().find(|cause| cause["reason"] == "ExitCode");
    match code.and_then(|cause| cause["message"].as_str()?.parse().ok()) {
        Some(code) => Ok(code),
        None => Err(ApiError::internal(status["message"].as_str().unwrap_or("the program could not be run"))),
    }
}

/// Connects to a port of a sandbox. The task that pumps it ends with the session, or with the connection.
pub(super) async fn port_forward(url: &str, port: u16, limit: Duration) -> Result<PortForwardSession, Error> {
    let (reader, mut writer) = open(url, PORT_FORWARD, limit).await?;
    let port = port.to_string();
    let streams = async {
        let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
        let error = writer.open_stream(&headers("error")).await?;
        writer.send(error, &Bytes::new(), true).await?;
        Ok((error, writer.open_stream(&headers("data")).await?))
    };
    let (error, data) = streams.await.map_err(|error| broken(&error))?;
    let (session, ours) = PortForwardSession::pair();
    tokio::spawn(async move {
        let PortForwardSession { sender, receiver } = ours;
        let gone = sender.clone();
        tokio::select! {
            () = receive_port(reader, error, data, sender) => {}
            () = send_port(writer, data, receiver, gone) => {}
        }
    });
    Ok(session)
}

type PortItem = Result<Bytes, ApiError>;

/// Hands on what the client sends; after its end, waits until nobody listens either.
async fn send_port(
    mut writer: Writer,
    data: StreamId,
    mut receiver: mpsc::Receiver<PortItem>,
    mut listener: mpsc::Sender<PortItem>,
) {
    loop {
        let sent = tokio::select! {
            next = receiver.next() => match next {
                Some(Ok(bytes)) => writer.send(data, &bytes, false).await,
                // A reset: the connection goes with it.
                Some(Err(_)) => return,
                None => {
                    if writer.send(data, &Bytes::new(), true).await.is_err() {
                        return;
                    }
                    break;
                }
            },
            answered = writer.answer() => answered,
        };
        if sent.is_err() {
            return;
        }
    }
    // A full channel is no sign that nobody listens, so only an error counts.
    loop {
        let look = futures::future::poll_fn(|cx| listener.poll_ready(cx));
        if matches!(tokio::time::timeout(GONE_PAUSE, look).await, Ok(Err(_))) {
            return;
        }
        tokio::time::sleep(GONE_PAUSE).await;
    }
}

async fn receive_port(
    mut reader: Reader,
    error: StreamId,
    data: StreamId,
    mut sender: mpsc::Sender<PortItem>,
) {
    let mut refusal = Vec::new();
    while let Some(event) = reader.next().await {
        let (id, bytes, fin) = match event {
            Event::Data { id, bytes, fin } => (id, bytes, fin),
            Event::Reset { id, .. } => (id, Bytes::new(), true),
            _ => continue,
        };
        if id == error {
            refusal.extend_from_slice(&bytes);
            if !refusal.is_empty() && fin {
                break;
            }
        } else if id == data {
            if !bytes.is_empty() && sender.send(Ok(bytes)).await.is_err() {
                return;
            }
            if fin && refusal.is_empty() {
                return;
            }
        }
    }
    if !refusal.is_empty() {
        // Nobody may be there to hear it.
        let _ = sender.send(Err(ApiError::internal(String::from_utf8_lossy(&refusal)))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: &str, want: Result<i32, &str>) {
        let found = exit(status.as_bytes());
        match want {
            Ok(code) => assert_eq!(found.ok(), Some(code), "{status}"),
            Err(words) => assert!(found.is_err_and(|error| error.message().contains(words)), "{status}"),
        }
    }

    #[test]
    fn the_last_status_holds_the_exit_code() {
        check("", Ok(0));
        check(r#"{"status":"Success"}"#, Ok(0));
        check(r#"{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#, Ok(3));
        check(r#"{"status":"Failure","message":"no such file"}"#, Err("no such file"));
        check(
            r#"{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"x"}]}}"#,
            Err("run"),
        );
        check("not JSON", Err("not JSON"));
    }

    /// A server that answers an upgrade with `head` and hangs up.
    async fn server(head: &'static str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(head.as_bytes()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        });
        format!("http://{address}/exec/token")
    }

    #[tokio::test]
    async fn refusals_are_told() {
        let options = StreamOptions { stdout: true, ..StreamOptions::default() };
        let limit = Duration::from_secs(5);
        let url = server("HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\nno token").await;
        let error = session(&url, &options, limit).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("404 Not Found no token"), "{error}");
        let url = server("hello").await;
        assert!(session(&url, &options, limit).await.is_err());
        let error = session("https://127.0.0.1:1/x", &options, limit).await.map(|_| ()).unwrap_err();
        assert_eq!(error.reason(), Reason::Unsupported);
    }

    #[tokio::test]
    async fn a_lost_connection_ends_an_exec() {
        let options = StreamOptions { stdout: true, ..StreamOptions::default() };
        let url = server("HTTP/1.1 101 Switching Protocols\r\n\r\n").await;
        let mut session = session(&url, &options, Duration::from_secs(5)).await.unwrap();
        match session.output.next().await {
            Some(ExecOutput::Exit(Err(error))) => assert!(error.message().contains("exit code"), "{error}"),
            other => panic!("{other:?}"),
        }
        assert!(session.output.next().await.is_none());
    }
}
