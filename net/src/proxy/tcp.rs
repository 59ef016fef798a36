//! TCP: each accepted connection is joined to the first endpoint that answers.

use super::Backends;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// After an error of accept (too many open files), so that it is not tried in a tight loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Serve {
    pub(super) backends: Arc<Backends>,
    pub(super) connections: Arc<Semaphore>,
    pub(super) connect_timeout: Duration,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Serve {
    pub(super) async fn run(self, listener: TcpListener) {
        let serve = Arc::new(self);
        let stop = serve.stop.clone();
        // The token ends the accepting; connections end with the proxy, or when both sides are done.
        stop.run_until_cancelled(serve.accept(listener)).await;
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok(permit) = self.connections.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, client)) => {
                    let serve = self.clone();
                    self.tasks.spawn(async move {
                        serve.stop.run_until_cancelled(serve.carry(stream, client)).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn carry(&self, mut client: TcpStream, from: SocketAddr) {
        for endpoint in self.backends.order(from.ip()) {
            let connect = tokio::time::timeout(self.connect_timeout, TcpStream::connect(endpoint));
            match connect.await {
                Ok(Ok(mut server)) => {
                    self.backends.connected(from.ip(), endpoint);
                    let _ = client.set_nodelay(true);
                    let _ = server.set_nodelay(true);
                    // Either side may end at any time; that is the peers' affair.
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
                Ok(Err(error)) => tracing::debug!(%endpoint, %error, "connect"),
                Err(_) => tracing::debug!(%endpoint, "connect timed out"),
            }
        }
        // No endpoint: a reset tells the client at once, as a reject rule would.
        let _ = client.set_zero_linger();
    }
}
