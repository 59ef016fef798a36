//! Values of Kubernetes' libraries, which expressions can only hand on and ask.

use super::authz::{Answer, Check};
use crate::Quantity;
use regex::Regex;
use std::cmp::Ordering;
use std::net::IpAddr;

/// A value of a library.
#[derive(Clone, Debug)]
pub enum Opaque {
    /// `quantity("10Mi")`.
    Quantity(Quantity),
    /// `url("https://...")`.
    Url(Url),
    /// `ip("10.0.0.1")`.
    Ip(IpAddr),
    /// `cidr("10.0.0.0/8")`.
    Cidr(Cidr),
    /// `semver("1.2.3")`.
    Semver(Semver),
    /// `format.named("dns1123Label")`.
    Format(&'static str),
    /// A pattern that was compiled with the expression.
    Pattern(Box<Pattern>),
    /// The authorizer variable and the checks built from it.
    Check(Box<Check>),
    /// What a check answered.
    Answer(Box<Answer>),
}

/// A regular expression and its text.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub(crate) text: String,
    pub(crate) regex: Regex,
}

/// The parts of an absolute URL or path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: String,
}

/// A network: an address and how many bits of it count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub(crate) address: IpAddr,
    pub(crate) bits: u8,
}

/// A semantic version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    pub(crate) major: u64,
    pub(crate) minor: u64,
    pub(crate) patch: u64,
    pub(crate) pre: Vec<String>,
    pub(crate) build: Vec<String>,
}

impl Opaque {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Opaque::Quantity(_) => "kubernetes.Quantity",
            Opaque::Url(_) => "kubernetes.URL",
            Opaque::Ip(_) => "net.IP",
            Opaque::Cidr(_) => "net.CIDR",
            Opaque::Semver(_) => "kubernetes.Semver",
            Opaque::Format(_) => "kubernetes.NamedFormat",
            Opaque::Pattern(_) => "string",
            Opaque::Check(check) => check.type_name(),
            Opaque::Answer(_) => "kubernetes.authorization.Decision",
        }
    }

    pub(crate) fn size(&self) -> u64 {
        match self {
            Opaque::Pattern(pattern) => pattern.text.chars().count() as u64,
            Opaque::Ip(ip) => address_bytes(*ip),
            Opaque::Cidr(cidr) => address_bytes(cidr.address),
            _ => 1,
        }
    }

    pub(crate) fn to_json(&self) -> Option<serde_json::Value> {
        Some(match self {
            Opaque::Quantity(quantity) => quantity.to_string().into(),
            Opaque::Ip(ip) => ip.to_string().into(),
            Opaque::Cidr(cidr) => cidr.to_string().into(),
            Opaque::Semver(version) => version.to_string().into(),
            Opaque::Pattern(pattern) => pattern.text.as_str().into(),
            _ => return None,
        })
    }

    pub(crate) fn equals(&self, other: &Opaque) -> bool {
        match (self, other) {
            (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
            (Opaque::Url(a), Opaque::Url(b)) => a == b,
            (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
            (Opaque::Cidr(a), Opaque::Cidr(b)) => a == b,
            (Opaque::Semver(a), Opaque::Semver(b)) => a.order(b) == Ordering::Equal,
            (Opaque::Format(a), Opaque::Format(b)) => a == b,
            _ => false,
        }
    }
}

fn address_bytes(ip: IpAddr) -> u64 {
    if ip.is_ipv4() { 4 } else { 16 }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl std::fmt::Display for Semver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        if !self.pre.is_empty() {
            write!(f, "-{}", self.pre.join("."))?;
        }
        if !self.build.is_empty() {
            write!(f, "+{}", self.build.join("."))?;
        }
        Ok(())
    }
}

impl Semver {
    /// The order of the specification; builds do not count.
    pub(crate) fn order(&self, other: &Semver) -> Ordering {
        let numbers = (self.major, self.minor, self.patch).cmp(&(other.major, other.minor, other.patch));
        numbers.then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self
                .pre
                .iter()
                .zip(&other.pre)
                .map(|(a, b)| order_of_parts(a, b))
                .find(|o| o.is_ne())
                .unwrap_or_else(|| self.pre.len().cmp(&other.pre.len())),
        })
    }
}

fn order_of_parts(a: &str, b: &str) -> Ordering {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}
