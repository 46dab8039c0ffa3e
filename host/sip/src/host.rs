//! Host and port as they stand in URIs and in Via (RFC 3261 §25.1).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cseq::number;
use crate::token::is_host_name;

/// A host name or an address.
#[derive(Clone, Copy, Debug)]
pub enum Host<'a> {
    /// A name, or digits and dots that are no IPv4 address.
    Name(&'a [u8]),
    /// Dotted decimal.
    V4(Ipv4Addr),
    /// Between brackets on the wire.
    V6(Ipv6Addr),
}

impl<'a> Host<'a> {
    /// The address, unless this is a name. IPv4-mapped IPv6 stays IPv6.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::V4(ip) => Some(ip.into()),
            Self::V6(ip) => Some(ip.into()),
        }
    }

    /// Reads a host that fills the slice: a name, an IPv4 address, or an IPv6 address in brackets.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (host, end) = Self::prefix(bytes)?;
        (end == bytes.len()).then_some(host)
    }

    /// Reads the host at the start of the slice; tells where it ends.
    pub(crate) fn prefix(bytes: &'a [u8]) -> Option<(Self, usize)> {
        if let Some(rest) = bytes.strip_prefix(b"[") {
            let length = memchr::memchr(b']', rest)?;
            let text = std::str::from_utf8(&rest[..length]).ok()?;
            return Some((Self::V6(text.parse().ok()?), length + 2));
        }

        let end = bytes.iter().position(|&byte| !is_host_name(byte));
        let end = end.unwrap_or(bytes.len());
        let name = &bytes[..end];
        let (first, last) = (name.first()?, name.last()?);
        if first.is_ascii_digit()
            && last.is_ascii_digit()
            && let Some(ip) = ipv4(name)
        {
            return Some((Self::V4(ip), end));
        }
        Some((Self::Name(name), end))
    }
}

/// Names are compared without regard to case, addresses by value.
impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(one), Self::Name(two)) => one.eq_ignore_ascii_case(two),
            (Self::V4(one), Self::V4(two)) => one == two,
            (Self::V6(one), Self::V6(two)) => one == two,
            _ => false,
        }
    }
}

impl Eq for Host<'_> {}

/// As it stands in a URI: IPv6 in brackets.
impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => fmt::Display::fmt(&name.escape_ascii(), f),
            Self::V4(ip) => fmt::Display::fmt(ip, f),
            Self::V6(ip) => write!(f, "[{ip}]"),
        }
    }
}

/// An address as it stands in Via's `received` and `maddr`: IPv6 with or without brackets, since
/// both are in use (RFC 5118 §4.5).
pub fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    let bare = bytes
        .strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"));
    let text = std::str::from_utf8(bare.unwrap_or(bytes)).ok()?;
    let ip: IpAddr = text.parse().ok()?;
    (bare.is_none() || ip.is_ipv6()).then_some(ip)
}

/// A port from 1 to 65535; nothing can be sent to port 0.
pub(crate) fn port(digits: &[u8]) -> Option<u16> {
    let number = number(digits, u16::MAX.into())?;
    u16::try_from(number).ok().filter(|&port| port != 0)
}

/// Four numbers up to 255 without leading zeros, which some read as octal.
fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut rest = text;
    for (at, octet) in octets.iter_mut().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix(b".")?;
        }
        let mut number = 0;
        let mut digits = 0;
        while let [digit @ b'0'..=b'9', more @ ..] = rest {
            if digits > 0 && number == 0 {
                return None;
            }
            number = number * 10 + u16::from(digit - b'0');
            digits += 1;
            if number > 255 {
                return None;
            }
            rest = more;
        }
        if digits == 0 {
            return None;
        }
        *octet = number as u8;
    }
    rest.is_empty().then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart() {
        assert!(matches!(
            Host::parse(b"example.com"),
            Some(Host::Name(b"example.com"))
        ));
        assert!(matches!(Host::parse(b"a_b-c"), Some(Host::Name(_))));
        assert!(matches!(Host::parse(b"192.0.2.1"), Some(Host::V4(_))));
        assert!(matches!(Host::parse(b"192.0.2.256"), Some(Host::Name(_))));
        assert!(matches!(Host::parse(b"1and1.example"), Some(Host::Name(_))));
        assert!(matches!(Host::parse(b"[2001:db8::10]"), Some(Host::V6(_))));
        assert!(matches!(
            Host::parse(b"[::ffff:192.0.2.1]"),
            Some(Host::V6(_))
        ));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bytes in [
            "",
            "[",
            "[::1",
            "[192.0.2.1]",
            "[fe80::1%eth0]",
            "a b",
            "a@b",
            "[::1]x",
            "::1",
        ] {
            assert_eq!(Host::parse(bytes.as_bytes()), None, "{bytes:?}");
        }
    }

    #[test]
    fn hosts_are_compared_as_their_kind_is() {
        assert_eq!(Host::parse(b"Example.COM"), Host::parse(b"example.com"));
        assert_eq!(
            Host::parse(b"[2001:DB8::0:1]"),
            Host::parse(b"[2001:db8::1]")
        );
        assert_ne!(
            Host::parse(b"192.0.2.1"),
            Host::parse(b"[::ffff:192.0.2.1]")
        );
    }

    #[test]
    fn received_addresses_come_with_and_without_brackets() {
        assert_eq!(
            ip_address(b"[2001:db8::9:255]"),
            ip_address(b"2001:db8::9:255")
        );
        assert_eq!(
            ip_address(b"192.0.2.1"),
            Some(Ipv4Addr::new(192, 0, 2, 1).into())
        );
        assert_eq!(ip_address(b"[192.0.2.1]"), None);
        assert_eq!(ip_address(b"example.com"), None);
    }

    #[test]
    fn ports_have_their_range() {
        assert_eq!(port(b"5060"), Some(5060));
        assert_eq!(port(b"065535"), Some(65_535));
        for digits in ["", "0", "65536", "-1", "5060 ", "99999999999"] {
            assert_eq!(port(digits.as_bytes()), None, "{digits:?}");
        }
    }

    proptest! {
        #[test]
        fn ipv4_addresses_are_those_of_the_standard_library(
            text in prop_oneof!["[0-9.]{0,16}", "([0-9]{1,3}\\.){3}[0-9]{1,3}", "(0?[0-2]?[0-9]{1,2}\\.){3}[0-9]{1,4}"],
        ) {
            prop_assert_eq!(ipv4(text.as_bytes()), text.parse().ok());
        }
    }
}
