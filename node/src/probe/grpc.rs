//! The Check call of `grpc.health.v1.Health`, by hand: one unary message each way needs no generated code.

use super::http::{address, dial};
use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};

const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Asks whether a service is healthy. `Ok(Err(..))` is an unhealthy answer, `Err` none at all.
pub(super) async fn check(host: &str, port: u16, service: &str) -> Result<Result<(), String>, String> {
    let stream = dial(host, port).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
    let request = Request::post(format!("http://{}/grpc.health.v1.Health/Check", address(host, port)))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(message(service)))
        .map_err(|e| e.to_string())?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let head = grpc_status(answer.headers());
        let body =
            Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|e| e.to_string())?;
        let status = body.trailers().and_then(grpc_status).or(head);
        match status {
            Some((0, _)) | None => Ok(serving(&body.to_bytes())),
            Some((12, _)) => Ok(Err("this server does not implement the grpc health protocol".to_owned())),
            Some((_, text)) => Ok(Err(format!("health rpc probe failed: {text}"))),
        }
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        result = &mut exchange => result,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(e) => Err(e.to_string()),
        },
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<(i32, String)> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let text = headers.get("grpc-message").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    Some((code, text))
}

/// A HealthCheckRequest in its frame.
fn message(service: &str) -> Bytes {
    let mut body = BytesMut::new();
    if !service.is_empty() {
        body.put_u8(0x0a);
        put_varint(&mut body, service.len());
        body.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    frame.put_slice(&body);
    frame.freeze()
}

fn put_varint(out: &mut BytesMut, mut n: usize) {
    while n >= 0x80 {
        out.put_u8(u8::try_from(n & 0x7f).unwrap_or(0) | 0x80);
        n >>= 7;
    }
    out.put_u8(u8::try_from(n).unwrap_or(0));
}

/// Reads a HealthCheckResponse out of its frame.
fn serving(frame: &[u8]) -> Result<(), String> {
    let message = frame.get(5..).unwrap_or(&[]);
    // Field 1, a varint: 0 unknown (absent), 1 serving, 2 not serving, 3 service unknown.
    let status = match message {
        [0x08, value, ..] => *value,
        _ => 0,
    };
    let name = match status {
        1 => return Ok(()),
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    };
    Err(format!("service unhealthy (responded with \"{name}\")"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_and_read() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(message(&"x".repeat(300))[6..8], [0xac, 0x02]);
        let check = |frame: &[u8], good: bool| assert_eq!(serving(frame).is_ok(), good, "{frame:?}");
        check(&[0, 0, 0, 0, 2, 8, 1], true);
        check(&[0, 0, 0, 0, 2, 8, 2], false);
        check(&[0, 0, 0, 0, 0], false);
        check(&[0, 0], false);
        check(&[], false);
    }
}
