//! How a plane is reached from outside: HTTPS with certificates of its own authority.

use kubewright_server::http::AllowedOrigins;
use kubewright_server::tls::Limits;
use std::net::SocketAddr;
use std::time::Duration;

/// An HTTPS server.
#[derive(Clone, Debug)]
pub struct Https {
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Further names and addresses for its certificate.
    pub names: Vec<String>,
    /// What clients are granted.
    pub limits: Limits,
    /// How long a shutdown lets `/readyz` fail before the socket is closed, so that load balancers see it.
    pub shutdown_delay: Duration,
    /// The authority (PEM) of front proxies, which name the user in headers.
    pub front_proxy_authority: Option<String>,
    /// Web pages that may ask.
    pub allowed_origins: Option<AllowedOrigins>,
    /// The directives of `Strict-Transport-Security` (`max-age=31536000,includeSubDomains`); none are sent without any.
    pub strict_transport: String,
}

impl Https {
    /// A server on an address.
    pub fn on(listen: SocketAddr) -> Self {
        Https {
            listen,
            names: Vec::new(),
            limits: Limits::default(),
            shutdown_delay: Duration::ZERO,
            front_proxy_authority: None,
            allowed_origins: None,
            strict_transport: String::new(),
        }
    }
}
