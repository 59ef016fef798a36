//! Pod addresses without root: each pod has a network of its own, and a loopback address at which its ports are answered.
//!
//! The runtime binds `address:port` on the machine for every port that a program in the pod listens on, and relays each
//! connection to a socket that the sandbox's `pause` helper opened inside. The client's address is kept when it is a loopback one.

mod egress;
mod forward;

pub(super) use egress::Egress;
pub(super) use forward::{Dialer, Forwarder, host_ports, relay_session};

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

/// What the runtime asks of a `pause` helper; each connection carries one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PauseRequest {
    /// Whether it is there.
    Ping,
    /// Connect to a port inside, from an address where that is a loopback one; the socket is passed.
    Dial { port: u16, source: Option<Ipv4Addr> },
    /// Tell on which ports something listens, now and whenever that changes.
    WatchPorts,
    /// Pass connections that leave the pod, each with its destination.
    Egress,
}

/// What a `pause` helper answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PauseAnswer {
    /// Done; a socket follows where one was asked for.
    Passed,
    /// The ports on which something listens.
    Ports(BTreeSet<u16>),
    /// A connection to this address leaves the pod; its socket follows.
    Outbound(SocketAddrV4),
    /// It could not be done.
    Failed(String),
}

const LISTEN: &str = "0A";

/// The TCP ports of the caller's network on which something listens for connections to `ip`.
pub(super) fn listening(ip: Option<Ipv4Addr>) -> BTreeSet<u16> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let mut ports = BTreeSet::new();
    collect_ports(&read("/proc/self/net/tcp"), ip, &mut ports);
    collect_ports(&read("/proc/self/net/tcp6"), ip, &mut ports);
    ports
}

fn collect_ports(table: &str, ip: Option<Ipv4Addr>, ports: &mut BTreeSet<u16>) {
    for line in table.lines().skip(1) {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(local), _, Some(state)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let Some((address, port)) = local.split_once(':') else { continue };
        if state == LISTEN && answers(address, ip) {
            ports.extend(u16::from_str_radix(port, 16));
        }
    }
}

/// Addresses are written as 32-bit words in the machine's byte order, in hexadecimal.
fn answers(address: &str, ip: Option<Ipv4Addr>) -> bool {
    let any = address.bytes().all(|digit| digit == b'0');
    let own = ip.is_some_and(|ip| {
        let word = format!("{:08X}", u32::from_ne_bytes(ip.octets()));
        let mapped = format!("{:08X}", u32::from_ne_bytes([0, 0, 0xff, 0xff]));
        address == word || address == format!("{:016}{mapped}{word}", 0)
    });
    any || own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_address_reaches_counts() {
        let head = "  sl  local_address rem_address   st\n";
        let check = |local: &str, state: &str, want: &[u16]| {
            let table = format!("{head}   0: {local} 00000000:0000 {state} 00000000:00000000\n");
            let mut ports = BTreeSet::new();
            collect_ports(&table, Some(Ipv4Addr::new(127, 64, 0, 2)), &mut ports);
            assert_eq!(ports.into_iter().collect::<Vec<_>>(), want, "{local} {state}");
        };
        check("00000000:0050", "0A", &[80]);
        check("00000000:0050", "01", &[]);
        check("0100007F:0050", "0A", &[]);
        check("00000000000000000000000000000000:1F90", "0A", &[8080]);
        if cfg!(target_endian = "little") {
            check("0200407F:0050", "0A", &[80]);
            check("0000000000000000FFFF00000200407F:0050", "0A", &[80]);
        }
        check("nonsense", "0A", &[]);
    }
}
