//! Where a request came from.

use http::request::Parts;
use std::net::{IpAddr, SocketAddr};

/// The other end of a connection, put into a request's extensions by the server that accepted it.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// The addresses of `X-Forwarded-For` (or `X-Real-Ip`), then the connection's; each once.
pub(super) fn of(parts: &Parts) -> Vec<String> {
    let mut all: Vec<IpAddr> = Vec::new();
    let text = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    all.extend(text("x-forwarded-for").split(',').filter_map(|t| t.trim().parse::<IpAddr>().ok()));
    if all.is_empty() {
        all.extend(text("x-real-ip").trim().parse::<IpAddr>().ok());
    }
    let peer = parts.extensions.get::<PeerAddress>().map(|p| p.0.ip());
    if let Some(peer) = peer.filter(|peer| all.last() != Some(peer)) {
        all.push(peer);
    }
    all.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_come_before_the_connection() {
        let check = |headers: &[(&str, &str)], want: &[&str]| {
            let mut request = http::Request::builder();
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            parts.extensions.insert(PeerAddress("10.0.0.1:5".parse().unwrap()));
            assert_eq!(of(&parts), want, "{headers:?}");
        };
        check(&[], &["10.0.0.1"]);
        check(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2")], &["1.1.1.1", "2.2.2.2", "10.0.0.1"]);
        check(&[("x-forwarded-for", "nonsense,10.0.0.1")], &["10.0.0.1"]);
        check(&[("x-real-ip", "::1")], &["::1", "10.0.0.1"]);
    }
}
