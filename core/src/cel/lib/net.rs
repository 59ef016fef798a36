//! Addresses and networks.

use super::super::cost::Price;
use super::super::fault::Fault;
use super::super::opaque::{Cidr, Opaque};
use super::super::run::{Evaluation, R};
use super::super::signature::Line;
use super::super::value::Val;
use super::strings::text;
use std::net::{IpAddr, Ipv4Addr};

pub(crate) const TABLE: &[Line] = &[
    ("ip(string) Ip", ip, Price::Parse),
    ("isIP(string) bool", is_ip, Price::Parse),
    ("ip.isCanonical(string) bool", is_canonical, Price::ParseTwice),
    ("Ip::family() int", family, Price::One),
    ("Ip::isUnspecified() bool", is_unspecified, Price::One),
    ("Ip::isLoopback() bool", is_loopback, Price::One),
    ("Ip::isLinkLocalMulticast() bool", is_link_local_multicast, Price::One),
    ("Ip::isLinkLocalUnicast() bool", is_link_local_unicast, Price::One),
    ("Ip::isGlobalUnicast() bool", is_global_unicast, Price::One),
    ("cidr(string) Cidr", cidr, Price::Parse),
    ("isCIDR(string) bool", is_cidr, Price::Parse),
    ("Cidr::containsIP(string) bool", contains_ip, Price::Network { whole: false, text: true }),
    ("Cidr::containsIP(Ip) bool", contains_ip, Price::Network { whole: false, text: false }),
    ("Cidr::containsCIDR(string) bool", contains_cidr, Price::Network { whole: true, text: true }),
    ("Cidr::containsCIDR(Cidr) bool", contains_cidr, Price::Network { whole: true, text: false }),
    ("Cidr::ip() Ip", cidr_ip, Price::Fixed(1)),
    ("Cidr::masked() Cidr", masked, Price::One),
    ("Cidr::prefixLength() int", prefix_length, Price::One),
];

/// An address: no zones, no IPv4 in the clothes of IPv6, no leading zeros.
fn parse_ip(text: &str) -> Result<IpAddr, Fault> {
    let address: IpAddr = text.parse().map_err(|_| {
        Fault::new(format!("IP Address \"{text}\" parse error during conversion from string: ParseAddr(\"{text}\"): unable to parse IP"))
    })?;
    if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return Err(Fault::new(format!("IPv4-mapped IPv6 address \"{text}\" is not allowed")));
    }
    Ok(address)
}

fn parse_cidr(text: &str) -> Result<Cidr, Fault> {
    let wrong = || {
        Fault::new(format!(
            "network address parse error during conversion from string: netip.ParsePrefix(\"{text}\"): invalid prefix"
        ))
    };
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let address = parse_ip(address).map_err(|_| wrong())?;
    let plain = !bits.is_empty()
        && bits.bytes().all(|b| b.is_ascii_digit())
        && (bits == "0" || !bits.starts_with('0'));
    let bits: u8 = bits.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
    if bits > width(address) { Err(wrong()) } else { Ok(Cidr { address, bits }) }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address as a number, the first bit in front.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

impl Cidr {
    fn holds(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && (number(self.address) ^ number(address)) & mask(self.bits) == 0
    }
}

fn own_ip(args: &[Val<'_>]) -> Result<IpAddr, Fault> {
    match args.first() {
        Some(Val::Opaque(opaque)) => match &**opaque {
            Opaque::Ip(ip) => Ok(*ip),
            _ => Err(Fault::no_overload()),
        },
        _ => Err(Fault::no_overload()),
    }
}

fn own_cidr(args: &[Val<'_>], at: usize) -> Result<Cidr, Fault> {
    match args.get(at) {
        Some(Val::Opaque(opaque)) => match &**opaque {
            Opaque::Cidr(cidr) => Ok(*cidr),
            _ => Err(Fault::no_overload()),
        },
        Some(Val::Text(text)) => parse_cidr(text),
        _ => Err(Fault::no_overload()),
    }
}

fn ip<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    parse_ip(text(args, 0)?).map(|ip| Val::opaque(Opaque::Ip(ip)))
}

fn is_ip<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::Bool(parse_ip(text(args, 0)?).is_ok()))
}

fn is_canonical<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let text = text(args, 0)?;
    parse_ip(text).map(|ip| Val::Bool(ip.to_string() == text))
}

fn family<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    own_ip(args).map(|ip| Val::Int(if ip.is_ipv4() { 4 } else { 6 }))
}

fn is_unspecified<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    own_ip(args).map(|ip| Val::Bool(ip.is_unspecified()))
}

fn is_loopback<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    own_ip(args).map(|ip| Val::Bool(ip.is_loopback()))
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets().starts_with(&[224, 0, 0]),
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

fn link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_link_local_multicast<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    own_ip(args).map(|ip| Val::Bool(link_local_multicast(ip)))
}

fn is_link_local_unicast<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    own_ip(args).map(|ip| Val::Bool(link_local_unicast(ip)))
}

fn is_global_unicast<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let ip = own_ip(args)?;
    let other = ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_multicast()
        || link_local_unicast(ip)
        || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    Ok(Val::Bool(!other))
}

fn cidr<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    parse_cidr(text(args, 0)?).map(|cidr| Val::opaque(Opaque::Cidr(cidr)))
}

fn is_cidr<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    Ok(Val::Bool(parse_cidr(text(args, 0)?).is_ok()))
}

fn contains_ip<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let network = own_cidr(args, 0)?;
    let address = match args.get(1) {
        Some(Val::Text(text)) => parse_ip(text)?,
        _ => own_ip(&args[1..])?,
    };
    Ok(Val::Bool(network.holds(address)))
}

fn contains_cidr<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let (network, other) = (own_cidr(args, 0)?, own_cidr(args, 1)?);
    Ok(Val::Bool(network.bits <= other.bits && network.holds(other.address)))
}

fn cidr_ip<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    own_cidr(args, 0).map(|cidr| Val::opaque(Opaque::Ip(cidr.address)))
}

fn masked<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    let cidr = own_cidr(args, 0)?;
    let kept = number(cidr.address) & mask(cidr.bits);
    let address = match cidr.address {
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(kept >> 96).unwrap_or(0).into()),
        IpAddr::V6(_) => IpAddr::V6(kept.into()),
    };
    Ok(Val::opaque(Opaque::Cidr(Cidr { address, ..cidr })))
}

fn prefix_length<'a>(_: &mut Evaluation<'a>, args: &[Val<'a>]) -> R<'a> {
    own_cidr(args, 0).map(|cidr| Val::Int(i64::from(cidr.bits)))
}
