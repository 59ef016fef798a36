//! How a plane is reached from outside: HTTPS with certificates of its own authority.

use std::net::SocketAddr;

/// An HTTPS server.
#[derive(Clone, Debug)]
pub struct Https {
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Further names and addresses for its certificate.
    pub names: Vec<String>,
}

impl Https {
    /// A server on an address.
    pub fn on(listen: SocketAddr) -> Self {
        Https { listen, names: Vec::new() }
    }
}
