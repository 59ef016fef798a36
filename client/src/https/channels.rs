//! exec and attach over a WebSocket's channels (`v5.channel.k8s.io`).

use super::Shared;
use super::socket::Socket;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kubewright_core::streams::{ExecInput, ExecOutput, ExecPeer, ExecSession};
use kubewright_core::{ApiError, ApiRequest, ApiResponse, ResponseBody};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

pub(super) async fn exec(shared: &Shared, request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let socket = shared.upgrade(request, "v5.channel.k8s.io").await?;
    let (session, peer) = ExecSession::pair();
    // The task ends with the session: its input then ends, and its output takes nothing.
    tokio::spawn(carry(socket, peer));
    Ok(ApiResponse::new(101, ResponseBody::Exec(session)))
}

async fn carry(socket: Socket, peer: ExecPeer) {
    let (mut sink, mut stream) = socket.split();
    let ExecPeer { mut input, mut output } = peer;
    let send = async {
        while let Some(event) = input.next().await {
            let message = match event {
                ExecInput::Stdin(bytes) => frame(STDIN, &bytes),
                ExecInput::CloseStdin => frame(CLOSE, &[STDIN]),
                ExecInput::Resize { width, height } => {
                    frame(RESIZE, json!({"Width": width, "Height": height}).to_string().as_bytes())
                }
            };
            if sink.send(message).await.is_err() {
                return;
            }
        }
    };
    let receive = async {
        while let Some(Ok(message)) = stream.next().await {
            let Message::Binary(bytes) = message else { continue };
            let Some((channel, rest)) = bytes.split_first() else { continue };
            let rest = bytes.slice_ref(rest);
            let event = match *channel {
                STDOUT if !rest.is_empty() => ExecOutput::Stdout(rest),
                STDERR if !rest.is_empty() => ExecOutput::Stderr(rest),
                ERROR if !rest.is_empty() => ExecOutput::Exit(exit(&rest)),
                _ => continue,
            };
            let last = matches!(event, ExecOutput::Exit(_));
            if output.send(event).await.is_err() || last {
                return;
            }
        }
    };
    tokio::select! { () = send => {}, () = receive => {} }
    // The server may be gone already.
    let _ = sink.close().await;
}

fn frame(channel: u8, bytes: &[u8]) -> Message {
    let mut out = BytesMut::with_capacity(bytes.len() + 1);
    out.put_u8(channel);
    out.put_slice(bytes);
    Message::Binary(out.freeze())
}

/// The exit code in a status of the error channel, or why there is none.
fn exit(bytes: &Bytes) -> Result<i32, ApiError> {
    let status: Status = serde_json::from_slice(bytes).map_err(ApiError::internal)?;
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.as_ref().and_then(|d| d.causes.as_deref()).unwrap_or_default();
    let code =
        causes.iter().find(|c| c.reason.as_deref() == Some("ExitCode")).and_then(|c| c.message.as_ref());
    match code.and_then(|c| c.parse().ok()) {
        Some(code) => Ok(code),
        None => Err(ApiError::from_status(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_the_exit() {
        let check = |text: &'static str, want: Result<i32, &str>| {
            let got = exit(&Bytes::from_static(text.as_bytes()));
            assert_eq!(got.map_err(|e| e.message().to_owned()), want.map_err(str::to_owned));
        };
        check(r#"{"status":"Success"}"#, Ok(0));
        check(
            r#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#,
            Ok(7),
        );
        check(r#"{"status":"Failure","message":"no such program"}"#, Err("no such program"));
        assert!(exit(&Bytes::from_static(b"?")).is_err());
    }
}
