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

#[cfg(test)]
mod tests {
    use super::*;

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
