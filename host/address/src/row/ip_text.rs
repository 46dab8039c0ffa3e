//! Parses the column `ip_addr`.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::finding::Finding;

/// The kind of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IpText {
    /// `padded`: written with leading zeros.
    V4 { addr: Ipv4Addr, padded: bool },
    /// `dotted`: the last 32 bits were written as a dotted quad.
    V6 { addr: Ipv6Addr, dotted: bool },
    /// Anything else that could be a host name.
    Name,
}

/// Distinguishes addresses from names, as Kamailio does by the characters (`:` or `[` means IPv6), and refuses anything else.
pub(super) fn read(text: &str) -> Result<IpText, Finding> {
    if text.is_empty() {
        return Err(fault(
            text,
            "is empty",
            "write an address, or remove the row",
        ));
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(fault(
            text,
            "has blanks in it",
            &format!("write {:?}", compact(text)),
        ));
    }
    if let Some((addr, bits)) = text.split_once('/') {
        return Err(cidr(text, addr, bits));
    }
    if text.starts_with('[') || text.contains(':') {
        return v6(text);
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return v4(text);
    }
    if text
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
    {
        return Ok(IpText::Name);
    }
    Err(fault(
        text,
        "is neither an address nor a host name",
        "write one address; patterns are not supported",
    ))
}

fn v4(text: &str) -> Result<IpText, Finding> {
    let addr = dotted_quad(text).ok_or_else(|| {
        fault(
            text,
            "is not an IPv4 address",
            "write four numbers from 0 to 255, separated by dots",
        )
    })?;
    let padded = text
        .split('.')
        .any(|part| part.len() > 1 && part.starts_with('0'));
    Ok(IpText::V4 { addr, padded })
}

/// Four numbers from 0 to 255 of at most three digits. Leading zeros are ignored, as in Kamailio.
pub(super) fn dotted_quad(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        let is_number = part.bytes().all(|b| b.is_ascii_digit());
        // No longer than an octet needs, so that the number below cannot overflow.
        if !is_number || !(1..=3).contains(&part.len()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

fn v6(text: &str) -> Result<IpText, Finding> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').unwrap_or(text),
        None => text,
    };
    if let Ok(addr) = bare.parse() {
        return Ok(IpText::V6 {
            addr,
            dotted: bare.contains('.'),
        });
    }
    if let Some((addr, port)) = with_port(text) {
        return Err(fault(
            text,
            "is an address with a port",
            &format!("write ip_addr {addr} and port {port}"),
        ));
    }
    if bare.contains('%') {
        return Err(fault(
            text,
            "has a zone, which source addresses do not have",
            "remove the % and everything after it",
        ));
    }
    Err(fault(
        text,
        "is not an IPv6 address",
        "write an address such as 2001:db8::1",
    ))
}

/// `192.0.2.1:5060` or `[2001:db8::1]:5060`.
fn with_port(text: &str) -> Option<(&str, u16)> {
    let (addr, port) = text.rsplit_once(':')?;
    let addr = match addr.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .filter(|bare| bare.parse::<Ipv6Addr>().is_ok())?,
        None => addr.parse::<Ipv4Addr>().is_ok().then_some(addr)?,
    };
    Some((addr, port.parse().ok()?))
}

fn cidr(text: &str, addr: &str, bits: &str) -> Finding {
    let bare = addr.trim_start_matches('[').trim_end_matches(']');
    let most = match bare.parse() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => 0,
    };
    match bits.parse::<u8>() {
        Ok(bits) if (1..=most).contains(&bits) => fault(
            text,
            "is a network in CIDR form, which Kamailio takes for a name",
            &format!("write ip_addr {bare} and mask {bits}"),
        ),
        _ => fault(
            text,
            "has a slash in it",
            "write the address alone; the number of bits belongs in the column mask",
        ),
    }
}

fn compact(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_whitespace() && !c.is_control())
        .collect()
}

fn fault(text: &str, fault: &str, mend: &str) -> Finding {
    Finding::text("ip_addr", text, fault, mend)
}
