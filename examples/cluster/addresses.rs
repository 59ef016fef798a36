//! The loopback addresses of this cluster: several clusters on one machine must not answer for each other's pods and Services.

use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

/// So many clusters can run on one machine.
const CLUSTERS_MAX: u8 = 16;

/// One cluster's share: pods in 127.64.0.0/16, Services in 127.96.0.0/16, or the same so many networks further on.
pub(crate) struct Addresses {
    share: u8,
    /// A name that only one process of this machine's network can hold, and that ends with the process.
    _claim: Option<UnixListener>,
}

impl Addresses {
    /// The first share, for pods that nobody can reach.
    pub(crate) fn simulated() -> Self {
        Addresses { share: 0, _claim: None }
    }

    /// The share that this data folder had before, else one that nobody on this machine uses now.
    pub(crate) fn claim(data: &Path) -> Result<Self, String> {
        let path = data.join("network");
        let recorded = match std::fs::read_to_string(&path) {
            Ok(text) => {
                Some(parse(&text).ok_or_else(|| format!("{}: no network of a cluster", path.display()))?)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(format!("{}: {e}", path.display())),
        };
        if let Some(share) = recorded {
            let taken = || {
                format!(
                    "another cluster of this machine uses its addresses {}: stop that one first",
                    pods(share)
                )
            };
            let claim = hold(share).ok_or_else(taken)?;
            return Ok(Addresses { share, _claim: Some(claim) });
        }
        // Clusters that are stopped keep their addresses for their containers, so that the choice should not fall on the same ones often.
        let first =
            data.as_os_str().as_encoded_bytes().iter().fold(0u8, |sum, byte| sum.wrapping_mul(31) ^ byte);
        let mut free = (0..CLUSTERS_MAX).map(|n| first.wrapping_add(n) % CLUSTERS_MAX);
        let found = free.find_map(|share| Some((share, hold(share)?)));
        let (share, claim) =
            found.ok_or_else(|| format!("{CLUSTERS_MAX} clusters run on this machine already"))?;
        std::fs::write(&path, pods(share)).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Addresses { share, _claim: Some(claim) })
    }

    /// The network of a node's pods, a /24.
    pub(crate) fn node(&self, number: u16) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64 + self.share, 0, 0)) + (u32::from(number) << 8))
    }

    /// The range of the Services.
    pub(crate) fn services(&self) -> String {
        format!("127.{}.0.0/16", 96 + self.share)
    }
}

fn pods(share: u8) -> String {
    format!("127.{}.0.0/16", 64 + share)
}

fn parse(text: &str) -> Option<u8> {
    (0..CLUSTERS_MAX).find(|share| pods(*share) == text.trim())
}

fn hold(share: u8) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("kubewright-cluster-{}", pods(share))).ok()?;
    UnixListener::bind_addr(&name).ok()
}
