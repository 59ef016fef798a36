//! IP addresses in objects.

use super::{ErrorSink, Path};
use crate::ErrorList;
use std::net::IpAddr;

/// Reads an address; records upstream's sentence where it is none.
pub(crate) fn parse_ip(text: &str, path: &Path<'_>, errors: &mut ErrorList) -> Option<IpAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        errors.invalid(path, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
    address
}

/// Validates an address that other machines must be able to reach. Where a cluster lives on the loopback interface of one machine, its
/// addresses are allowed.
pub(crate) fn validate_endpoint_ip(
    text: &str,
    allow_loopback: bool,
    path: &Path<'_>,
    errors: &mut ErrorList,
) {
    let Some(address) = parse_ip(text, path, errors) else { return };
    let problem = if address.is_unspecified() {
        format!("may not be unspecified ({text})")
    } else if address.is_loopback() && !allow_loopback {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()
    } else if is_link_local(address) {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()
    } else if is_link_local_multicast(address) {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()
    } else {
        return;
    };
    errors.invalid(path, text, &problem);
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_link_local_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    /// The address as it was written.
    pub(crate) address: IpAddr,
    /// How many bits of it are fixed.
    pub(crate) bits: u8,
}

impl Network {
    /// Reads `address/bits`; `None` where it is no range.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let whole = matches!(bits.as_bytes(), [b'0'] | [b'1'..=b'9', ..]);
        let bits: u8 = bits.parse().ok().filter(|_| whole)?;
        (bits <= width(address)).then_some(Self { address, bits })
    }

    /// Whether an address lies in the range.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        let above = |a: IpAddr| number(a).checked_shr(self.free()).unwrap_or(0);
        address.is_ipv4() == self.address.is_ipv4() && above(address) == above(self.address)
    }

    /// Whether all bits beyond the fixed ones are zero.
    pub(crate) fn is_masked(self) -> bool {
        let number = number(self.address);
        number.checked_shr(self.free()).unwrap_or(0).checked_shl(self.free()).unwrap_or(0) == number
    }

    fn free(self) -> u32 {
        u32::from(width(self.address) - self.bits)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// Reads a range; records upstream's sentence where it is none.
pub(crate) fn parse_cidr(text: &str, path: &Path<'_>, errors: &mut ErrorList) -> Option<Network> {
    let network = Network::parse(text);
    if network.is_none() {
        errors.invalid(path, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    }
    network
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_their_addresses() {
        let check = |range: &str, address: &str, wanted: bool| {
            let network = Network::parse(range).unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), wanted, "{range} {address}");
        };
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "fd00::1", true);
        check("fd00::/64", "fd00::1:0:0:0:1", false);
        check("10.0.0.1/32", "10.0.0.1", true);
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "x/8", "::/129"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
        assert!(Network::parse("10.0.0.0/8").unwrap().is_masked());
        assert!(!Network::parse("10.0.0.1/8").unwrap().is_masked());
        assert!(Network::parse("::/0").unwrap().is_masked());
    }

    #[test]
    fn only_reachable_addresses_pass() {
        let check = |ip: &str, loopback: bool, wanted: bool| {
            let mut errors = ErrorList::new();
            validate_endpoint_ip(ip, loopback, &Path::Root.child("ip"), &mut errors);
            assert_eq!(errors.is_empty(), wanted, "{ip} {errors:?}");
        };
        check("10.0.0.1", false, true);
        check("fd00::1", false, true);
        check("127.64.0.1", false, false);
        check("127.64.0.1", true, true);
        check("0.0.0.0", true, false);
        check("169.254.0.1", false, false);
        check("fe80::1", false, false);
        check("224.0.0.1", false, false);
        check("ff02::1", false, false);
        check("a", false, false);
    }
}
