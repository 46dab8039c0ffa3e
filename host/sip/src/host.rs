//! Host and port in URIs and in Via (RFC 3261 §25.1).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cseq::number;
use crate::token::is_host_name;

/// A host name or an address.
#[derive(Clone, Copy, Debug)]
pub enum Host<'a> {
    /// A name, or digits and dots that are not an IPv4 address.
    Name(&'a [u8]),
    /// Dotted decimal.
    V4(Ipv4Addr),
    /// In brackets on the wire.
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

    /// Reads the host at the start of the slice; returns its end.
    pub(crate) fn prefix(bytes: &'a [u8]) -> Option<(Self, usize)> {
        if let Some(rest) = bytes.strip_prefix(b"[") {
            let near = rest.get(..=LONGEST_V6).unwrap_or(rest);
            let length = memchr::memchr(b']', near)?;
            return Some((Self::V6(ipv6(&rest[..length])?), length + 2));
        }

        let near = bytes.get(..=LONGEST_NAME).unwrap_or(bytes);
        let end = near.iter().position(|&byte| !is_host_name(byte));
        let end = end.unwrap_or(near.len());
        let name = &near[..end];
        if end > LONGEST_NAME {
            return None;
        }
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

/// Names are compared case-insensitively, addresses by value.
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

/// In the form of a URI: IPv6 in brackets.
impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => fmt::Display::fmt(&name.escape_ascii(), f),
            Self::V4(ip) => fmt::Display::fmt(ip, f),
            Self::V6(ip) => write!(f, "[{ip}]"),
        }
    }
}

/// An address in Via's `received` and `maddr`: IPv6 with or without brackets, since both are in use (RFC 5118 §4.5).
pub fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    let bare = bytes
        .strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"));
    let text = bare.unwrap_or(bytes);
    match ipv4(text) {
        Some(ip) => bare.is_none().then_some(ip.into()),
        None => ipv6(text).map(IpAddr::V6),
    }
}

/// The longest host name in DNS, in bytes (RFC 1035 §2.3.4). A longer name is not a valid host.
pub(crate) const LONGEST_NAME: usize = 255;

/// The longest IPv6 address in text, one with an IPv4 part, and the third colon that some senders write.
const LONGEST_V6: usize = 46;

/// An IPv6 address without brackets. By the grammar of RFC 3261, some senders write three colons before an IPv4 part instead of
/// two; both forms are accepted (RFC 5118 §4.10).
fn ipv6(text: &[u8]) -> Option<Ipv6Addr> {
    if text.len() > LONGEST_V6 {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let (before, after) = text.split_once(":::")?;
    ipv4(after.as_bytes())?;
    let mut mended = [0; LONGEST_V6];
    let mut length = 0;
    for part in [before, "::", after] {
        mended
            .get_mut(length..length + part.len())?
            .copy_from_slice(part.as_bytes());
        length += part.len();
    }
    std::str::from_utf8(&mended[..length]).ok()?.parse().ok()
}

/// A port from 1 to 65535; port 0 cannot be a destination.
pub(crate) fn port(digits: &[u8]) -> Option<u16> {
    let number = number(digits, u16::MAX.into())?;
    u16::try_from(number).ok().filter(|&port| port != 0)
}

/// Four numbers up to 255 without leading zeros, because some parsers take these for octal.
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
    fn a_third_colon_before_an_ipv4_part_is_passed_over() {
        let right = Host::parse(b"[2001:db8::192.0.2.1]");
        assert!(right.is_some());
        assert_eq!(Host::parse(b"[2001:db8:::192.0.2.1]"), right);
        assert_eq!(
            ip_address(b"2001:db8:::192.0.2.1"),
            right.and_then(Host::ip)
        );
        for other in [
            "[2001:db8:::1]",
            "[2001:db8::::192.0.2.1]",
            "[:::]",
            "[::1:::192.0.2.1]",
        ] {
            assert_eq!(Host::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_host_is_no_longer_than_dns_has_names() {
        let name = |length| "a.".repeat(200)[..length].to_owned();
        assert!(Host::parse(name(255).as_bytes()).is_some());
        assert_eq!(Host::parse(name(256).as_bytes()), None);
        assert_eq!(Host::parse("1".repeat(8000).as_bytes()), None);
        let padded = format!("[::{}1]", "0".repeat(8000));
        assert_eq!(Host::parse(padded.as_bytes()), None);
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
