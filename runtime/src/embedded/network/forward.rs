//! The machine's side of a pod's network: listeners at the pod's address, relays into the pod.

use super::{PauseAnswer, PauseRequest};
use crate::embedded::socket::{connect_async, read_value, write_value};
use crate::port::PortMapping;
use crate::{Error, Reason};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use kubewright_core::ApiError;
use kubewright_core::streams::PortForwardSession;
use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;

/// Connections relayed at once for one port; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 1024;
const RETRY: Duration = Duration::from_millis(500);
const DIAL_TIME_MAX: Duration = Duration::from_secs(15);

/// Opens connections into a pod.
#[derive(Clone, Debug)]
pub(crate) enum Dialer {
    /// Through the helper that holds the pod's network.
    Pause(PathBuf),
    /// The pod uses the machine's network.
    Machine(Ipv4Addr),
}

impl Dialer {
    /// Connects to a port of the pod.
    pub(crate) async fn dial(&self, port: u16, source: Option<Ipv4Addr>) -> io::Result<TcpStream> {
        let work = async {
            match self {
                Dialer::Pause(socket) => dial_inside(socket, port, source).await,
                Dialer::Machine(ip) => match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                    Err(_) => TcpStream::connect((*ip, port)).await,
                    connected => connected,
                },
            }
        };
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        tokio::time::timeout(DIAL_TIME_MAX, work).await.map_err(late)?
    }
}

async fn dial_inside(socket: &Path, port: u16, source: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let mut stream = connect_async(socket)?;
    write_value(&mut stream, &PauseRequest::Dial { port, source }).await?;
    match read_value(&mut stream).await? {
        PauseAnswer::Passed => receive(&stream).await,
        PauseAnswer::Failed(sentence) => Err(io::Error::other(sentence)),
        PauseAnswer::Ports(_) | PauseAnswer::Outbound(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Takes over a socket that the helper passed.
pub(super) async fn receive(stream: &UnixStream) -> io::Result<TcpStream> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let received = stream.async_io(Interest::READABLE, || {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let passed = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        passed.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    });
    let socket = std::net::TcpStream::from(received.await?);
    socket.set_nonblocking(true)?;
    TcpStream::from_std(socket)
}

/// Answers at a pod's address for the ports that are listened on inside.
pub(crate) struct Forwarder {
    pub(crate) ip: Ipv4Addr,
    pub(crate) socket: PathBuf,
}

impl Forwarder {
    /// Follows the pod's listening ports until the helper is gone.
    pub(crate) async fn run(self) {
        let mut listeners: BTreeMap<u16, JoinSet<()>> = BTreeMap::new();
        while let Ok(mut stream) = connect_async(&self.socket) {
            if write_value(&mut stream, &PauseRequest::WatchPorts).await.is_err() {
                continue;
            }
            while let Ok(PauseAnswer::Ports(ports)) = read_value(&mut stream).await {
                listeners.retain(|port, _| ports.contains(port));
                for port in ports {
                    listeners.entry(port).or_insert_with(|| {
                        let mut listener = JoinSet::new();
                        let address = SocketAddr::from((self.ip, port));
                        listener.spawn(serve(address, port, Dialer::Pause(self.socket.clone())));
                        listener
                    });
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn serve(address: SocketAddr, port: u16, dialer: Dialer) {
    match TcpListener::bind(address).await {
        Ok(listener) => relay_all(listener, port, dialer).await,
        Err(error) => tracing::warn!(%address, %error, "a pod's port can't be answered on this machine"),
    }
}

async fn relay_all(listener: TcpListener, port: u16, dialer: Dialer) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((client, from)) => { connections.spawn(relay(client, from, port, dialer.clone())); }
                // Out of descriptors, most likely: others must end first.
                Err(_) => tokio::time::sleep(RETRY).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(mut client: TcpStream, from: SocketAddr, port: u16, dialer: Dialer) {
    let source = match from.ip() {
        IpAddr::V4(ip) if ip.is_loopback() && ip != Ipv4Addr::LOCALHOST => Some(ip),
        _ => None,
    };
    let Ok(mut inside) = dialer.dial(port, source).await else { return };
    let _ = (client.set_nodelay(true), inside.set_nodelay(true));
    // Either side may end the connection at any time.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut inside).await;
}

/// Binds the node's ports of a pod, and gives the work of relaying them.
pub(crate) async fn host_ports(
    mappings: &[PortMapping],
    dialer: &Dialer,
) -> Result<Vec<impl Future<Output = ()> + Send + 'static + use<>>, Error> {
    let mut work = Vec::new();
    for mapping in mappings.iter().filter(|mapping| mapping.host_port != 0) {
        let failed = |why: String| {
            Error::new(Reason::Failed, format!("host port {}/{}: {why}", mapping.host_port, mapping.protocol))
        };
        if !mapping.protocol.is_empty() && !mapping.protocol.eq_ignore_ascii_case("tcp") {
            return Err(Error::new(
                Reason::Unsupported,
                failed("only TCP is relayed".to_owned()).to_string(),
            ));
        }
        let ip = match mapping.host_ip.as_str() {
            "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            text => text.parse().map_err(|_| failed(format!("{text:?} is no address")))?,
        };
        let listener = TcpListener::bind((ip, mapping.host_port)).await.map_err(|e| failed(e.to_string()))?;
        work.push(relay_all(listener, mapping.container_port, dialer.clone()));
    }
    Ok(work)
}

/// Carries a port-forward session over a connection, until both directions have ended.
pub(crate) async fn relay_session(connection: TcpStream, peer: PortForwardSession) {
    let (mut from, mut to) = connection.into_split();
    let (mut sender, mut receiver) = (peer.sender, peer.receiver);
    let inward = async {
        while let Some(Ok(bytes)) = receiver.next().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let outward = async {
        let mut block = vec![0; 32 * 1024];
        loop {
            let frame = match from.read(&mut block).await {
                Ok(0) => return drop(sender),
                Ok(count) => Ok(Bytes::copy_from_slice(&block[..count])),
                Err(e) => Err(ApiError::internal(e)),
            };
            let failed = frame.is_err();
            if sender.send(frame).await.is_err() || failed {
                return;
            }
        }
    };
    tokio::join!(inward, outward);
}
