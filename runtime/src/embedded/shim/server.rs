//! Answers the runtime: signals, waits, execs, attaches.

use super::process::{self, Input, Program};
use super::{Shared, ShimAnswer, ShimRequest};
use crate::embedded::socket::{FrameKind, read_frame, read_value, write_frame, write_value};
use crate::logs::LogStream;
use bytes::Bytes;
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const CLIENTS_MAX: usize = 256;

/// Serves requests until `end` comes.
pub(super) async fn serve_until<T>(
    end: impl Future<Output = T>,
    listener: &UnixListener,
    clients: &mut JoinSet<()>,
    shared: &Arc<Shared>,
) -> T {
    tokio::pin!(end);
    loop {
        tokio::select! {
            result = &mut end => return result,
            Ok((stream, _)) = listener.accept(), if clients.len() < CLIENTS_MAX => {
                let shared = Arc::clone(shared);
                // A client that went away needs no answer.
                clients.spawn(async move { let _ = answer(stream, &shared).await; });
            }
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn answer(stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let (mut from, mut to) = stream.into_split();
    let said = match read_value(&mut from).await? {
        ShimRequest::Signal(number) => process::signal(shared.pid, number).map(|()| ShimAnswer::Done),
        ShimRequest::ReopenLog => reopen(shared),
        ShimRequest::Wait => tokio::select! {
            code = ended(shared) => Ok(ShimAnswer::Ended(code)),
            // The end of the other side: nobody waits any more.
            _ = read_frame(&mut from) => return Ok(()),
        },
        ShimRequest::Exec { command, tty, stdin } => {
            match Program::exec(&shared.spec.dir, shared.pid, command, tty, stdin).await {
                Ok(program) => exec(program, from, &mut to).await,
                Err(sentence) => Err(sentence),
            }
        }
        ShimRequest::Attach { stdin } => attach(shared, stdin, from, &mut to).await,
    };
    write_value(&mut to, &said.unwrap_or_else(ShimAnswer::Failed)).await
}

async fn ended(shared: &Shared) -> i32 {
    let mut ended = shared.ended.clone();
    let code = ended.wait_for(Option::is_some).await.ok().and_then(|code| *code);
    code.unwrap_or(255)
}

fn reopen(shared: &Shared) -> Result<ShimAnswer, String> {
    let mut log = shared.log.lock().unwrap_or_else(|e| e.into_inner());
    match log.as_mut().map(crate::logs::LogFile::reopen) {
        Some(Err(e)) => Err(format!("log file: {e}")),
        Some(Ok(())) | None => Ok(ShimAnswer::Done),
    }
}

/// Drives a further program: its end is answered; the client's end kills it.
async fn exec(
    mut program: Program,
    from: OwnedReadHalf,
    to: &mut OwnedWriteHalf,
) -> Result<ShimAnswer, String> {
    write_value(to, &ShimAnswer::Done).await.map_err(|e| e.to_string())?;
    let input = program.input.take();
    let mut tasks = program.pump_input();
    let (sender, mut output) = mpsc::channel(1);
    let mut readers = JoinSet::new();
    for (stream, mut from) in program.outputs() {
        let sender = sender.clone();
        readers.spawn(async move {
            let mut block = vec![0; 32 * 1024];
            while let Ok(count @ 1..) = from.read(&mut block).await {
                if sender.send((stream, Bytes::copy_from_slice(&block[..count]))).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let pid = program.pid;
    let work = async {
        while let Some((stream, bytes)) = output.recv().await {
            write_output(to, stream, &bytes).await?;
        }
        io::Result::Ok(process::exit_code(program.child.wait().await))
    };
    let result = tokio::select! {
        result = work => result,
        () = carry(from, input, true) => Err(io::ErrorKind::ConnectionAborted.into()),
    };
    process::kill_group(pid);
    let _ = program.child.start_kill();
    tasks.abort_all();
    result.map(ShimAnswer::Ended).map_err(|e| e.to_string())
}

/// Connects a client to the first process until either goes.
async fn attach(
    shared: &Shared,
    stdin: bool,
    from: OwnedReadHalf,
    to: &mut OwnedWriteHalf,
) -> Result<ShimAnswer, String> {
    let mut output = shared.output.subscribe();
    write_value(to, &ShimAnswer::Done).await.map_err(|e| e.to_string())?;
    let input = shared.input.lock().unwrap_or_else(|e| e.into_inner()).clone();
    let close_after = shared.spec.stdin_once && stdin;
    let work = async {
        while let Some((stream, bytes)) = output.recv().await {
            write_output(to, stream, &bytes).await?;
        }
        io::Result::Ok(ended(shared).await)
    };
    let result = tokio::select! {
        result = work => result,
        () = carry(from, input.clone(), stdin) => Err(io::ErrorKind::ConnectionAborted.into()),
    };
    if let (true, Some(input)) = (close_after, input) {
        let _ = input.send(Input::Close).await;
    }
    result.map(ShimAnswer::Ended).map_err(|e| e.to_string())
}

/// Carries a client's frames to a program, until the client goes.
async fn carry(mut from: OwnedReadHalf, input: Option<mpsc::Sender<Input>>, stdin: bool) {
    while let Ok(Some((kind, bytes))) = read_frame(&mut from).await {
        let sent = match (kind, bytes.as_slice()) {
            (FrameKind::Stdin, _) if stdin => Input::Bytes(Bytes::from(bytes)),
            (FrameKind::CloseStdin, _) if stdin => Input::Close,
            (FrameKind::Resize, [a, b, c, d]) => {
                Input::Resize { columns: u16::from_be_bytes([*a, *b]), rows: u16::from_be_bytes([*c, *d]) }
            }
            _ => continue,
        };
        if let Some(input) = &input {
            // A program that ended takes no input; its end is told by the other direction.
            let _ = input.send(sent).await;
        }
    }
}

async fn write_output(to: &mut OwnedWriteHalf, stream: LogStream, bytes: &[u8]) -> io::Result<()> {
    let kind = match stream {
        LogStream::Stdout => FrameKind::Stdout,
        LogStream::Stderr => FrameKind::Stderr,
    };
    write_frame(to, kind, bytes).await
}
