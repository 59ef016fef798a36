//! Connections out of pods: the helper inside takes them and hands them over with their destination, and they are relayed from
//! here, so that a pod reaches what this machine reaches by TCP: other pods, Services, the API server, the world.

use super::forward::{Dialer, receive};
use super::{PauseAnswer, PauseRequest};
use crate::embedded::Inner;
use crate::embedded::socket::{connect_async, read_value, write_value};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Weak;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

const CONNECTIONS_MAX: usize = 1024;
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(500);

/// Relays what leaves a pod.
pub(crate) struct Egress {
    pub(crate) ip: Ipv4Addr,
    pub(crate) socket: PathBuf,
    pub(crate) runtime: Weak<Inner>,
}

impl Egress {
    /// Relays until the helper is gone, or says that it can't.
    pub(crate) async fn run(self) {
        let mut connections = JoinSet::new();
        while let Ok(mut stream) = connect_async(&self.socket) {
            if write_value(&mut stream, &PauseRequest::Egress).await.is_err() {
                continue;
            }
            loop {
                match read_value(&mut stream).await {
                    Ok(PauseAnswer::Outbound(to)) => {
                        let Ok(client) = receive(&stream).await else { break };
                        connections.spawn(relay(client, self.ip, to, self.runtime.clone()));
                    }
                    Ok(PauseAnswer::Failed(why)) => {
                        tracing::warn!(ip = %self.ip, why, "a pod's connections can't leave its network");
                        return;
                    }
                    _ => break,
                }
                while connections.try_join_next().is_some() {}
                while connections.len() >= CONNECTIONS_MAX {
                    connections.join_next().await;
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn relay(mut client: TcpStream, own: Ipv4Addr, to: SocketAddrV4, runtime: Weak<Inner>) {
    let dialer = runtime.upgrade().and_then(|inner| inner.dialer_of(*to.ip()));
    drop(runtime);
    let connected = tokio::time::timeout(CONNECT_TIME_MAX, connect(own, to, dialer)).await;
    let Ok(Ok(mut server)) = connected else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // Either side may end the connection at any time.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

/// A pod of this runtime is reached without a listener on the machine, also on ports that only root may bind there.
async fn connect(own: Ipv4Addr, to: SocketAddrV4, dialer: Option<Dialer>) -> io::Result<TcpStream> {
    if let Some(dialer) = dialer {
        return dialer.dial(to.port(), Some(own)).await;
    }
    let socket = TcpSocket::new_v4()?;
    if to.ip().is_loopback() && own.is_loopback() {
        // So that the other side sees the pod's address.
        socket.bind(SocketAddrV4::new(own, 0).into())?;
    }
    socket.connect(to.into()).await
}
