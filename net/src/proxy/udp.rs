//! UDP: each client address has a flow, a socket of its own towards one endpoint, until it has been idle.

use super::Backends;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

type Flows = Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>>;

pub(super) struct Serve {
    pub(super) backends: Arc<Backends>,
    pub(super) idle: Duration,
    pub(super) flows_max: usize,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Serve {
    pub(super) async fn run(self, socket: UdpSocket) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.serve(Arc::new(socket))).await;
    }

    async fn serve(&self, socket: Arc<UdpSocket>) {
        let flows = Flows::default();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
            let known = flows.lock().unwrap_or_else(PoisonError::into_inner).get(&client).cloned();
            let flow = match known {
                Some(flow) => flow,
                None => match self.open(&socket, &flows, client).await {
                    Some(flow) => flow,
                    None => continue,
                },
            };
            // A datagram may be lost; the protocol above deals with it.
            let _ = flow.send(&buffer[..length]).await;
        }
    }

    async fn open(
        &self,
        socket: &Arc<UdpSocket>,
        flows: &Flows,
        client: SocketAddr,
    ) -> Option<Arc<UdpSocket>> {
        if flows.lock().unwrap_or_else(PoisonError::into_inner).len() >= self.flows_max {
            return None;
        }
        let endpoint = *self.backends.order(client.ip()).first()?;
        let any = match endpoint.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let flow = Arc::new(UdpSocket::bind(SocketAddr::new(any, 0)).await.ok()?);
        flow.connect(endpoint).await.ok()?;
        self.backends.connected(client.ip(), endpoint);
        flows.lock().unwrap_or_else(PoisonError::into_inner).insert(client, flow.clone());
        let (socket, flows, back, idle) = (socket.clone(), flows.clone(), flow.clone(), self.idle);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(answer(&socket, &back, client, idle)).await;
            flows.lock().unwrap_or_else(PoisonError::into_inner).remove(&client);
        });
        Some(flow)
    }
}

/// Carries answers back until none has come for a while.
async fn answer(socket: &UdpSocket, flow: &UdpSocket, client: SocketAddr, idle: Duration) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while let Ok(Ok(length)) = tokio::time::timeout(idle, flow.recv(&mut buffer)).await {
        let _ = socket.send_to(&buffer[..length], client).await;
    }
}
