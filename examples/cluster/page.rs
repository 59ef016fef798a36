//! The demo's workload: a web server that shows the text of a mounted ConfigMap and the name of its pod.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

/// The first argument that starts this role.
pub(crate) const ROLE: &str = "serve-page";

/// Serves until it is ended.
pub(crate) fn serve() -> ExitCode {
    let port = std::env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    // With a network namespace of its own the pod has every address; without one it must keep to its own.
    let ip = std::env::var("BIND").unwrap_or_else(|_| "0.0.0.0".to_owned());
    let listener = match TcpListener::bind(format!("{ip}:{port}")) {
        Ok(listener) => listener,
        Err(e) => {
            eprintln!("{ip}:{port}: {e}");
            return ExitCode::FAILURE;
        }
    };
    println!("serving on {ip}:{port}");
    for stream in listener.incoming().flatten() {
        if let Err(e) = answer(stream) {
            eprintln!("a client went away: {e}");
        }
    }
    ExitCode::SUCCESS
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let text = std::fs::read_to_string(std::env::var("PAGE").unwrap_or_default()).unwrap_or_default();
    let pod = std::env::var("POD_NAME").unwrap_or_default();
    let body = format!("{} from {pod}\n", text.trim());
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}
