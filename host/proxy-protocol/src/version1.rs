//! Version 1: a line of text (§2.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::header::{Header, HeaderError};
use crate::step::Step;

/// How a line begins.
pub(crate) const START: &[u8] = b"PROXY ";

/// Most bytes of a line, with its end.
const LONGEST: usize = 107;

pub(crate) fn step(received: &[u8]) -> Result<Step, HeaderError> {
    let Some(fields) = received.strip_prefix(START) else {
        return match START.starts_with(received) {
            true => Ok(Step::Bytes(START.len() - received.len())),
            false => Err(HeaderError::Missing),
        };
    };
    match fields.strip_suffix(b"\n") {
        Some(fields) => line(fields).map(Step::Whole).ok_or(HeaderError::Line),
        None if received.len() < LONGEST => Ok(Step::Line(LONGEST - received.len())),
        None => Err(HeaderError::Line),
    }
}

fn line(fields: &[u8]) -> Option<Header> {
    let text = std::str::from_utf8(fields.strip_suffix(b"\r")?).ok()?;
    let mut fields = text.split(' ');
    let is_v4 = match fields.next()? {
        "TCP4" => true,
        "TCP6" => false,
        // Whatever follows.
        "UNKNOWN" => return Some(Header::Own),
        _ => return None,
    };
    let ip = |text: &str| -> Option<IpAddr> {
        match is_v4 {
            true => Some(text.parse::<Ipv4Addr>().ok()?.into()),
            false => Some(text.parse::<Ipv6Addr>().ok()?.into()),
        }
    };
    let (source, destination) = (ip(fields.next()?)?, ip(fields.next()?)?);
    let (from, to) = (port(fields.next()?)?, port(fields.next()?)?);
    if fields.next().is_some() {
        return None;
    }
    Some(Header::Client {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    })
}

fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}
