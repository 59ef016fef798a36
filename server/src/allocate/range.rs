//! Ranges of addresses of either family, `10.96.0.0/12` or `fd00::/112`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The family of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// `IPv4` or `IPv6`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        }
    }

    fn bits(self) -> u32 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

/// The cluster IP of the API server's own Service in a range such as `10.96.0.0/12`, or in the first of two.
///
/// # Errors
/// A sentence about what is wrong with the range.
pub fn api_service_address(service_cidr: &str) -> Result<IpAddr, String> {
    AddressRange::parse_all(service_cidr).map(|ranges| ranges[0].at(0))
}

/// Addresses that Services get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressRange {
    first: u128,
    /// The length of the prefix.
    prefix: u32,
    pub(crate) family: Family,
}

impl AddressRange {
    /// # Errors
    /// A sentence about what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no range such as 10.96.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u32 = prefix.parse().map_err(|_| wrong())?;
        let family = Family::of(address);
        let bounds = if family == Family::V4 { 8..=30 } else { 64..=126 };
        if !bounds.contains(&prefix) {
            let (least, most) = (bounds.start(), bounds.end());
            return Err(format!(
                "{text:?}: a range of Service addresses has {least} to {most} bits of prefix"
            ));
        }
        let host = family.bits() - prefix;
        Ok(AddressRange { first: number(address) >> host << host, prefix, family })
    }

    /// One range, or one of each family with a comma between.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub(crate) fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let ranges = text.split(',').map(|one| Self::parse(one.trim())).collect::<Result<Vec<_>, _>>()?;
        match ranges.as_slice() {
            [_] => Ok(ranges),
            [a, b] if a.family != b.family => Ok(ranges),
            _ => Err(format!("{text:?}: at most one range of each family is possible")),
        }
    }

    /// How many addresses can be given out: all but the first, and in IPv4 the last.
    pub(crate) fn size(self) -> u64 {
        let host = self.family.bits() - self.prefix;
        let all = 1u128.checked_shl(host).unwrap_or(u128::MAX);
        let taken = if self.family == Family::V4 { 2 } else { 1 };
        u64::try_from(all - taken).unwrap_or(u64::MAX)
    }

    /// The address at a place, from 0 (`.1`) on.
    pub(crate) fn at(self, place: u64) -> IpAddr {
        address(self.first + 1 + u128::from(place % self.size()), self.family)
    }

    pub(crate) fn contains(self, wanted: IpAddr) -> bool {
        let wanted_number = number(wanted);
        Family::of(wanted) == self.family
            && wanted_number > self.first
            && wanted_number - self.first <= u128::from(self.size())
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

fn address(number: u128, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(0)).into(),
        Family::V6 => Ipv6Addr::from(number).into(),
    }
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", address(self.first, self.family), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_know_their_addresses() {
        let range = AddressRange::parse("10.96.3.9/24").unwrap();
        assert_eq!((range.to_string().as_str(), range.size()), ("10.96.3.0/24", 254));
        let at = |text: &str| -> IpAddr { text.parse().unwrap() };
        assert_eq!((range.at(0), range.at(253)), (at("10.96.3.1"), at("10.96.3.254")));
        let check = |address: &str, expected| assert_eq!(range.contains(at(address)), expected);
        check("10.96.3.0", false);
        check("10.96.3.1", true);
        check("10.96.3.254", true);
        check("10.96.3.255", false);
        check("10.96.4.1", false);
        check("fd00::1", false);
        let wide = AddressRange::parse("fd00:1::5/64").unwrap();
        assert_eq!((wide.to_string().as_str(), wide.size()), ("fd00:1::/64", u64::MAX));
        assert_eq!(wide.at(0), at("fd00:1::1"));
        assert!(wide.contains(at("fd00:1::ffff:1")) && !wide.contains(at("fd00:2::1")));
        for bad in
            ["", "10.0.0.0", "10.0.0.0/31", "10.0.0.0/x", "::/63", "300.0.0.0/16", "10.0.0.0/8,11.0.0.0/8"]
        {
            assert!(AddressRange::parse_all(bad).is_err(), "{bad}");
        }
        assert_eq!(AddressRange::parse_all("10.0.0.0/24, fd00::/112").unwrap().len(), 2);
    }
}
