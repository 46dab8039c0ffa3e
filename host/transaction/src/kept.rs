//! What retransmissions of an ended transaction are answered with, as bytes.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use portcullis_sip::{ConnectionId, Destination, Transport};

use crate::delta;
use crate::outbox::What;

/// A message that answers retransmissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept<'k> {
    /// The response of a target, the reply of this host, or the ACK of the failure of a target.
    pub(crate) what: What,
    /// The number of the target whose failure is acknowledged; 0 for a response.
    pub(crate) branch: u8,
    pub(crate) to: Destination,
    /// The ACK; a response as its [difference](crate::delta) to the request.
    pub(crate) bytes: &'k [u8],
}

impl Kept<'_> {
    /// Appends it to others.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        self.write_with(|out| out.extend_from_slice(self.bytes), out);
    }

    /// Appends a response to this request. `bytes` is the whole response.
    pub(crate) fn write_response_to(&self, request: &[u8], out: &mut Vec<u8>) {
        self.write_with(|out| delta::write(self.bytes, request, out), out);
    }

    fn write_with(&self, write_bytes: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
        out.push(match self.what {
            What::Ack => ACK,
            What::Response => RESPONSE,
            What::Request
            | What::RequestRetransmission
            | What::Cancel
            | What::CancelRetransmission
            | What::ResponseRetransmission
            | What::ResponseUnasked
            | What::Reply
            | What::ReplyRetransmission
            | What::ReplyUnasked => REPLY,
        });
        out.push(self.branch);
        write_destination(&self.to, out);
        let place = out.len();
        out.extend_from_slice(&[0; LENGTH]);
        write_bytes(out);
        let length = (out.len() - place - LENGTH) as u32;
        out[place..place + LENGTH].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Bytes of a length.
const LENGTH: usize = size_of::<u32>();

const REPLY: u8 = 0;
const RESPONSE: u8 = 1;
const ACK: u8 = 2;

/// Reads what [`Kept::write`] has written.
pub(crate) fn read(bytes: &[u8]) -> impl Iterator<Item = Kept<'_>> {
    let mut rest = Rest(bytes);
    std::iter::from_fn(move || rest.kept())
}

/// Parts of a destination that are present, as bits.
const HAS_FROM: u8 = 1;
const HAS_CONNECTION: u8 = 2;
const HAS_NAME: u8 = 4;
const IS_FLOW: u8 = 8;
/// The number of the transport follows these bits.
const TRANSPORT: u32 = 4;

fn write_destination(to: &Destination, out: &mut Vec<u8>) {
    let Destination {
        transport,
        addr,
        from,
        connection,
        name,
        is_flow,
    } = to;
    let mut flags = transport.number() << TRANSPORT;
    flags |= if from.is_some() { HAS_FROM } else { 0 };
    flags |= if connection.is_some() {
        HAS_CONNECTION
    } else {
        0
    };
    flags |= if name.is_some() { HAS_NAME } else { 0 };
    flags |= if *is_flow { IS_FLOW } else { 0 };
    out.push(flags);
    write_address(addr, out);
    if let Some(from) = from {
        write_address(from, out);
    }
    if let Some(ConnectionId(number)) = connection {
        out.extend_from_slice(&number.to_ne_bytes());
    }
    if let Some(name) = name {
        out.extend_from_slice(&name.to_ne_bytes());
    }
}

fn write_address(address: &SocketAddr, out: &mut Vec<u8>) {
    match address {
        SocketAddr::V4(v4) => {
            out.push(4);
            out.extend_from_slice(&v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            out.push(6);
            out.extend_from_slice(&v6.ip().octets());
            out.extend_from_slice(&v6.flowinfo().to_ne_bytes());
            out.extend_from_slice(&v6.scope_id().to_ne_bytes());
        }
    }
    out.extend_from_slice(&address.port().to_ne_bytes());
}

/// Bytes that were not read yet.
struct Rest<'k>(&'k [u8]);

impl<'k> Rest<'k> {
    fn kept(&mut self) -> Option<Kept<'k>> {
        let [kind, branch] = self.take()?;
        let to = self.destination()?;
        let length = u32::from_ne_bytes(self.take()?) as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Kept {
            what: match kind {
                REPLY => What::Reply,
                RESPONSE => What::Response,
                _ => What::Ack,
            },
            branch,
            to,
            bytes,
        })
    }

    fn destination(&mut self) -> Option<Destination> {
        let [flags] = self.take()?;
        let has = |flag| flags & flag != 0;
        Some(Destination {
            transport: Transport::of_number(flags >> TRANSPORT)?,
            addr: self.address()?,
            from: match has(HAS_FROM) {
                true => Some(self.address()?),
                false => None,
            },
            connection: match has(HAS_CONNECTION) {
                true => Some(ConnectionId(u64::from_ne_bytes(self.take()?))),
                false => None,
            },
            name: match has(HAS_NAME) {
                true => Some(u64::from_ne_bytes(self.take()?)),
                false => None,
            },
            is_flow: has(IS_FLOW),
        })
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let [family] = self.take()?;
        if family == 4 {
            let ip = IpAddr::from(self.take::<4>()?);
            return Some(SocketAddr::new(ip, self.port()?));
        }
        let ip = self.take::<16>()?.into();
        let [flow, scope] = [self.take()?, self.take()?].map(u32::from_ne_bytes);
        Some(SocketAddrV6::new(ip, self.port()?, flow, scope).into())
    }

    fn port(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), any::<u16>(), any::<u32>(), any::<u32>()).prop_map(
            |(ip, port, flow, scope)| match ip {
                IpAddr::V4(_) => SocketAddr::new(ip, port),
                IpAddr::V6(ip) => SocketAddrV6::new(ip, port, flow, scope).into(),
            },
        )
    }

    fn destination() -> impl Strategy<Value = Destination> {
        let connection = any::<Option<u64>>();
        let parts = (
            prop::sample::select(Transport::ALL.to_vec()),
            address(),
            prop::option::of(address()),
            connection,
            any::<Option<u64>>(),
            any::<bool>(),
        );
        parts.prop_map(
            |(transport, addr, from, connection, name, is_flow)| Destination {
                transport,
                addr,
                from,
                connection: connection.map(ConnectionId),
                name,
                is_flow,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_kept_is_read_as_it_was_written(
            all in prop::collection::vec((0_usize..3, any::<u8>(), destination(), any::<Vec<u8>>()), 0..4),
        ) {
            let kinds = [What::Reply, What::Response, What::Ack];
            let all: Vec<_> = all
                .iter()
                .map(|(kind, branch, to, bytes)| Kept { what: kinds[*kind], branch: *branch, to: *to, bytes })
                .collect();
            let mut bytes = Vec::new();
            all.iter().for_each(|kept| kept.write(&mut bytes));
            let found: Vec<_> = read(&bytes).collect();
            prop_assert_eq!(found, all);
        }
    }
}
