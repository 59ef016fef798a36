//! A Service proxy in user space: it listens on the virtual addresses and node ports itself and carries bytes to ready endpoints.
//!
//! It needs neither root nor netfilter where the virtual addresses lie in the loopback range, all of which every Linux machine answers on.

mod affinity;
mod table;
mod tcp;
mod udp;

pub use affinity::Backends;
pub use table::{Protocol, ServicePort, service_ports};

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How the proxy behaves.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// Where node ports listen.
    pub node_addresses: Vec<IpAddr>,
    /// How long a connection to an endpoint may take before the next one is tried.
    pub connect_timeout: Duration,
    /// How long a UDP flow is remembered without a packet.
    pub udp_idle_timeout: Duration,
    /// How many TCP connections are carried at once; further ones wait to be accepted.
    pub connections_max: usize,
    /// How many UDP flows a port has at once; the packets of further clients are dropped.
    pub udp_flows_max: usize,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        ProxyOptions {
            node_addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            connect_timeout: Duration::from_secs(3),
            udp_idle_timeout: Duration::from_secs(60),
            connections_max: 8192,
            udp_flows_max: 1024,
        }
    }
}

/// A port that could not be listened on.
#[derive(Debug)]
pub struct BindFailure {
    /// Namespace and name of the Service.
    pub service: String,
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub error: io::Error,
}

impl fmt::Display for BindFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, address, error) = (&self.service, self.address, &self.error);
        write!(f, "Service {service} does not answer on {address}: {error}")?;
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                f.write_str(" (ports below 1024 need root, or a lower net.ipv4.ip_unprivileged_port_start)")
            }
            io::ErrorKind::AddrNotAvailable => f.write_str(" (the address is not one of this machine's)"),
            _ => Ok(()),
        }
    }
}

type Key = (SocketAddr, Protocol);

struct Listener {
    backends: Arc<Backends>,
    stop: CancellationToken,
}

/// A running proxy. Dropping it ends every listener and connection.
pub struct ServiceProxy {
    options: ProxyOptions,
    listeners: Mutex<HashMap<Key, Listener>>,
    /// Held for each TCP connection.
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl fmt::Debug for ServiceProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceProxy({} listeners)", self.lock().len())
    }
}

impl ServiceProxy {
    /// A proxy without Services.
    pub fn new(options: ProxyOptions) -> Self {
        ServiceProxy {
            connections: Arc::new(Semaphore::new(options.connections_max)),
            options,
            listeners: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the listeners those of this table: new ones are opened, those not in it are closed, and the endpoints of the others are
    /// exchanged. Connections of an exchanged port go on. Gives the ports that could not be opened; call it again to retry them.
    ///
    /// # Cancel safety
    /// A dropped call leaves some of the changes made; the next one makes the rest.
    pub async fn apply(&self, table: &[ServicePort]) -> Vec<BindFailure> {
        let wanted = self.wanted(table);
        self.lock().retain(|key, listener| {
            let keep = wanted.contains_key(key);
            if !keep {
                listener.stop.cancel();
            }
            keep
        });
        let mut failures = Vec::new();
        for (key, port) in wanted {
            if let Some(listener) = self.lock().get(&key) {
                listener.backends.replace(&port.endpoints, port.affinity);
                continue;
            }
            if let Err(error) = self.open(key, port).await {
                failures.push(BindFailure { service: port.service.clone(), address: key.0, error });
            }
        }
        failures
    }

    fn wanted<'a>(&self, table: &'a [ServicePort]) -> HashMap<Key, &'a ServicePort> {
        let mut wanted = HashMap::new();
        for port in table {
            for address in &port.addresses {
                wanted.entry((SocketAddr::new(*address, port.port), port.protocol)).or_insert(port);
            }
            for address in port.node_port.iter().flat_map(|_| &self.options.node_addresses) {
                let node_port = port.node_port.unwrap_or(0);
                wanted.entry((SocketAddr::new(*address, node_port), port.protocol)).or_insert(port);
            }
        }
        wanted
    }

    async fn open(&self, key: Key, port: &ServicePort) -> io::Result<()> {
        let backends = Arc::new(Backends::new(&port.endpoints, port.affinity));
        let stop = self.stop.child_token();
        match key.1 {
            Protocol::Tcp => {
                let listener = tokio::net::TcpListener::bind(key.0).await?;
                let serve = tcp::Serve {
                    backends: backends.clone(),
                    connections: self.connections.clone(),
                    connect_timeout: self.options.connect_timeout,
                    stop: stop.clone(),
                    tasks: self.tasks.clone(),
                };
                self.tasks.spawn(serve.run(listener));
            }
            Protocol::Udp => {
                let socket = tokio::net::UdpSocket::bind(key.0).await?;
                let serve = udp::Serve {
                    backends: backends.clone(),
                    idle: self.options.udp_idle_timeout,
                    flows_max: self.options.udp_flows_max,
                    stop: stop.clone(),
                    tasks: self.tasks.clone(),
                };
                self.tasks.spawn(serve.run(socket));
            }
        }
        self.lock().insert(key, Listener { backends, stop });
        Ok(())
    }

    /// The addresses that are listened on now.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<SocketAddr> = self.lock().keys().map(|(address, _)| *address).collect();
        addresses.sort();
        addresses
    }

    /// Closes every listener, ends every connection, and waits for both.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.lock().clear();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for ServiceProxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
