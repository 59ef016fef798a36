//! Sockets inside a pod's network for the runtime outside: what listens there, connections to it, connections out of it.

use super::StageResult;
use crate::embedded::network::{PauseAnswer, PauseRequest, listening};
use crate::embedded::socket::{read_value, write_value};
use crate::embedded::spec::PauseSpec;
use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How often the listening sockets are looked at: soon after a change, seldom when nothing changes.
const LOOK_FAST: Duration = Duration::from_millis(50);
const LOOK_SLOW: Duration = Duration::from_millis(500);
/// Requests served at once; more wait in the socket's queue.
const REQUESTS_MAX: usize = 1024;

/// Serves the runtime until the process is killed.
pub(super) fn serve(
    spec: &PauseSpec,
    listener: std::os::unix::net::UnixListener,
    outbound: StageResult<std::net::TcpListener>,
) -> StageResult<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("event loop: {e}"))?;
    let ip = spec.ip;
    runtime.block_on(async move {
        listener.set_nonblocking(true).map_err(|e| e.to_string())?;
        let listener = UnixListener::from_std(listener).map_err(|e| e.to_string())?;
        let outbound = outbound.and_then(|listener| {
            listener.set_nonblocking(true).map_err(|e| e.to_string())?;
            TcpListener::from_std(listener).map_err(|e| e.to_string())
        });
        let (outbound, mut requests) = (Arc::new(outbound), JoinSet::new());
        loop {
            tokio::select! {
                accepted = listener.accept(), if requests.len() < REQUESTS_MAX => match accepted {
                    Ok((stream, _)) => { requests.spawn(answer(stream, ip, Arc::clone(&outbound))); }
                    Err(_) => tokio::time::sleep(LOOK_SLOW).await,
                },
                Some(_) = requests.join_next() => {}
            }
        }
    })
}

async fn answer(
    mut stream: UnixStream,
    ip: Option<Ipv4Addr>,
    outbound: Arc<StageResult<TcpListener>>,
) -> io::Result<()> {
    match read_value::<PauseRequest>(&mut stream).await? {
        PauseRequest::Dial { port, source } => {
            match dial(ip.unwrap_or(Ipv4Addr::LOCALHOST), port, source).await {
                Ok(connection) => {
                    write_value(&mut stream, &PauseAnswer::Passed).await?;
                    pass(&stream, connection).await
                }
                Err(e) => write_value(&mut stream, &PauseAnswer::Failed(e.to_string())).await,
            }
        }
        PauseRequest::WatchPorts => watch_ports(&mut stream, ip).await,
        PauseRequest::Egress => match outbound.as_ref() {
            Ok(outbound) => hand_out(&mut stream, outbound).await,
            Err(why) => write_value(&mut stream, &PauseAnswer::Failed(why.clone())).await,
        },
        PauseRequest::Ping => write_value(&mut stream, &PauseAnswer::Passed).await,
    }
}

/// Connects from inside: to the pod's address where the program listens on it, else to 127.0.0.1.
async fn dial(ip: Ipv4Addr, port: u16, source: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let connect = async |to: Ipv4Addr| {
        let socket = TcpSocket::new_v4()?;
        if let Some(source) = source.filter(|source| source.is_loopback()) {
            socket.bind(SocketAddrV4::new(source, 0).into())?;
        }
        socket.connect(SocketAddrV4::new(to, port).into()).await
    };
    let both = async {
        match connect(ip).await {
            Err(_) if ip != Ipv4Addr::LOCALHOST && source.is_none() => connect(Ipv4Addr::LOCALHOST).await,
            other => other,
        }
    };
    tokio::time::timeout(CONNECT_TIME_MAX, both)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Hands a socket over; it belongs to the receiver then.
async fn pass(stream: &UnixStream, connection: TcpStream) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors = [connection.as_fd()];
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
            sendmsg(stream, &[IoSlice::new(b"+")], &mut control, SendFlags::empty())?;
            Ok(())
        })
        .await
}

/// Hands over the connections that leave the pod, until the runtime goes.
async fn hand_out(stream: &mut UnixStream, outbound: &TcpListener) -> io::Result<()> {
    loop {
        let connection = tokio::select! {
            accepted = outbound.accept() => match accepted {
                Ok((connection, _)) => connection,
                Err(_) => {
                    tokio::time::sleep(LOOK_SLOW).await;
                    continue;
                }
            },
            // The runtime says nothing more: readable means that it is gone.
            ready = stream.readable() => {
                ready?;
                return Ok(());
            }
        };
        // One that was made to the listener itself was not led here, and has nowhere to go.
        let Ok(to) = nix::sys::socket::getsockopt(&connection, nix::sys::socket::sockopt::OriginalDst) else {
            continue;
        };
        let to = SocketAddrV4::new(u32::from_be(to.sin_addr.s_addr).into(), u16::from_be(to.sin_port));
        write_value(stream, &PauseAnswer::Outbound(to)).await?;
        pass(stream, connection).await?;
    }
}

/// Tells the set of ports on which something listens whenever it changes, until the runtime goes.
async fn watch_ports(stream: &mut UnixStream, ip: Option<Ipv4Addr>) -> io::Result<()> {
    let mut told: Option<BTreeSet<u16>> = None;
    let mut pause = LOOK_FAST;
    loop {
        let now = listening(ip);
        if told.as_ref() != Some(&now) {
            write_value(stream, &PauseAnswer::Ports(now.clone())).await?;
            told = Some(now);
            pause = LOOK_FAST;
        } else {
            pause = (pause * 5 / 4).min(LOOK_SLOW);
        }
        let mut byte = [0];
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Readable means that the runtime went away: it says nothing more.
            ready = stream.readable() => {
                ready?;
                match stream.try_read(&mut byte) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    _ => return Ok(()),
                }
            }
        }
    }
}
