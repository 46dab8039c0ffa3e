//! Version 2: a head of 16 bytes, addresses, and further values, which are skipped (§2.2).

use std::net::{IpAddr, SocketAddr};

use crate::header::{Header, HeaderError};
use crate::step::{LONGEST, Step};

/// How a header begins.
pub(crate) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of the head: the signature, version and command, family and protocol, and the length of the rest.
const HEAD: usize = 16;

/// What the head says about the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addresses {
    /// To be skipped.
    Unused,
    V4,
    V6,
}

pub(crate) fn step(received: &[u8]) -> Result<Step, HeaderError> {
    let Some(head) = received.strip_prefix(SIGNATURE) else {
        return match SIGNATURE.starts_with(received) {
            true => Ok(Step::Bytes(SIGNATURE.len() - received.len())),
            false => Err(HeaderError::Missing),
        };
    };
    let &[command, family, high, low, ref rest @ ..] = head else {
        return Ok(Step::Bytes(HEAD - received.len()));
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let addresses = addresses(command, family, length)?;
    match length.checked_sub(rest.len()) {
        Some(missing @ 1..) => Ok(Step::Bytes(missing)),
        Some(0) | None => read(addresses, rest)
            .map(Step::Whole)
            .ok_or(HeaderError::TooShort(length)),
    }
}

/// Reads the head, and checks the length of the rest.
fn addresses(command: u8, family: u8, length: usize) -> Result<Addresses, HeaderError> {
    if command >> 4 != 2 {
        return Err(HeaderError::Version(command >> 4));
    }
    if HEAD + length > LONGEST {
        return Err(HeaderError::TooLong(HEAD + length));
    }
    match command & 0xf {
        // LOCAL: the family is ignored.
        0 => return Ok(Addresses::Unused),
        1 => {}
        unknown => return Err(HeaderError::Command(unknown)),
    }
    let (addresses, least) = match family {
        0x11 => (Addresses::V4, 12),
        0x21 => (Addresses::V6, 36),
        _ if family >> 4 > 3 || family & 0xf > 2 => return Err(HeaderError::Family(family)),
        // No address, one of a Unix socket, or that of a datagram.
        _ => (Addresses::Unused, 0),
    };
    match length < least {
        true => Err(HeaderError::TooShort(length)),
        false => Ok(addresses),
    }
}

fn read(addresses: Addresses, rest: &[u8]) -> Option<Header> {
    match addresses {
        Addresses::Unused => Some(Header::Own),
        Addresses::V4 => client::<4>(rest),
        Addresses::V6 => client::<16>(rest),
    }
}

/// Both addresses, then both ports.
fn client<const N: usize>(rest: &[u8]) -> Option<Header>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = rest.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (from, rest) = rest.split_first_chunk::<2>()?;
    let (to, _) = rest.split_first_chunk::<2>()?;
    let addr = |ip: &[u8; N], port| SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(port));
    Some(Header::Client {
        source: addr(source, *from),
        destination: addr(destination, *to),
    })
}
