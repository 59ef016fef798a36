//! A range of IPv4 addresses, `10.96.0.0/12`.

use std::net::{IpAddr, Ipv4Addr};

/// The cluster IP of the API server's own Service in a range such as `10.96.0.0/12`.
///
/// # Errors
/// A sentence about what is wrong with the range.
pub fn api_service_address(service_cidr: &str) -> Result<IpAddr, String> {
    AddressRange::parse(service_cidr).map(|range| range.at(0).into())
}

/// The addresses that Services get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressRange {
    first: u32,
    bits: u32,
}

impl AddressRange {
    /// # Errors
    /// A sentence about what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no IPv4 range such as 10.96.0.0/16");
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let bits: u32 = bits.parse().map_err(|_| wrong())?;
        if !(8..=30).contains(&bits) {
            return Err(format!("{text:?}: a range of Service addresses has 8 to 30 bits of prefix"));
        }
        let mask = u32::MAX << (32 - bits);
        Ok(AddressRange { first: u32::from(address) & mask, bits })
    }

    /// How many addresses can be given out: all but the first and the last.
    pub(crate) fn size(self) -> u64 {
        (1u64 << (32 - self.bits)) - 2
    }

    /// The address at a place, from 0 (`.1`) on.
    pub(crate) fn at(self, place: u64) -> Ipv4Addr {
        let offset = u32::try_from(place % self.size()).unwrap_or(0);
        Ipv4Addr::from(self.first + 1 + offset)
    }

    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        address > self.first && u64::from(address - self.first) <= self.size()
    }
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_know_their_addresses() {
        let range = AddressRange::parse("10.96.3.9/24").unwrap();
        assert_eq!((range.to_string().as_str(), range.size()), ("10.96.3.0/24", 254));
        assert_eq!(
            (range.at(0), range.at(253)),
            ("10.96.3.1".parse().unwrap(), "10.96.3.254".parse().unwrap())
        );
        let check = |address: &str, expected| assert_eq!(range.contains(address.parse().unwrap()), expected);
        check("10.96.3.0", false);
        check("10.96.3.1", true);
        check("10.96.3.254", true);
        check("10.96.3.255", false);
        check("10.96.4.1", false);
        for bad in ["", "10.0.0.0", "10.0.0.0/31", "10.0.0.0/x", "::/64", "300.0.0.0/16"] {
            assert!(AddressRange::parse(bad).is_err(), "{bad}");
        }
    }
}
