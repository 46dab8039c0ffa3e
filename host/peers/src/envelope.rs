//! The packets that hosts send to each other.
//!
//! All numbers are big-endian, and an address is 16 bytes (an IPv4 address mapped into IPv6) and a port:
//!
//! | bytes | in both kinds |
//! |---|---|
//! | 4 | `PCP1`: the version is a part of it |
//! | 1 | kind: 1 hello, 2 message |
//! | 4, 4 | tags of sender and receiver |
//! | 8, 8 | sessions of sender and receiver; 0 if that of the receiver is not known |
//! | ... | the rest, by kind |
//! | 16 | keyed hash of all bytes before |
//!
//! A hello has a challenge (8), the last challenge of the receiver (8), whether the sender takes new requests (1), and the number (1) and the
//! hashed names (8 each) of its sockets in the order of their numbers. A message has the count of the sender (8), the number of the transaction (8),
//! the source (18), the number of the socket (2) that has received it, and the datagram without change.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::keys::{Key, SEAL, bytes_of};

/// The most sockets that a hello names.
pub(crate) const MOST_SOCKETS: usize = 64;

/// The longest payload of a datagram over IPv4.
const DATAGRAM: usize = 65_507;

const MAGIC: [u8; 4] = *b"PCP1";
const HELLO: u8 = 1;
const MESSAGE: u8 = 2;
const HEAD: usize = 29;
const MESSAGE_HEAD: usize = HEAD + 8 + 8 + 18 + 2;

/// The longest message that fits into an envelope.
pub(crate) const LONGEST: usize = DATAGRAM - MESSAGE_HEAD - SEAL;

/// From whom to whom a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) sender: u32,
    pub(crate) receiver: u32,
    pub(crate) session: u64,
    pub(crate) receiver_session: u64,
}

/// That a host lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// What the receiver is to return.
    pub(crate) challenge: u64,
    /// The last challenge of the receiver; 0 without one.
    pub(crate) returned: u64,
    /// Whether the sender takes new requests.
    pub(crate) serves: bool,
    /// The names of the sender's sockets, [`MOST_SOCKETS`] of them at most; 0 for one that is not shared.
    pub(crate) sockets: Vec<u64>,
}

/// A message that another host has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried<'a> {
    /// The number of its transaction, which says which worker has it.
    pub transaction: u64,
    /// Where it came from.
    pub source: SocketAddr,
    /// The number of the socket that has received it.
    pub socket: u16,
    /// The datagram.
    pub bytes: &'a [u8],
}

/// What is in a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Hello(Hello),
    /// A message, with the count of the sender.
    Message(u64, Carried<'a>),
}

impl Head {
    fn write(&self, kind: u8, out: &mut Vec<u8>) {
        out.clear();
        out.extend(MAGIC);
        out.push(kind);
        out.extend(self.sender.to_be_bytes());
        out.extend(self.receiver.to_be_bytes());
        out.extend(self.session.to_be_bytes());
        out.extend(self.receiver_session.to_be_bytes());
    }
}

impl Hello {
    /// Writes the packet in place of what is in `out`.
    pub(crate) fn write(&self, head: &Head, key: &Key, out: &mut Vec<u8>) {
        head.write(HELLO, out);
        out.extend(self.challenge.to_be_bytes());
        out.extend(self.returned.to_be_bytes());
        out.push(self.serves.into());
        let sockets = &self.sockets[..self.sockets.len().min(MOST_SOCKETS)];
        out.push(sockets.len() as u8);
        for socket in sockets {
            out.extend(socket.to_be_bytes());
        }
        seal(key, out);
    }

    fn read(mut input: Input<'_>) -> Option<Self> {
        let (challenge, returned) = (input.number()?, input.number()?);
        let [serves, count] = input.take::<2>()?;
        if serves > 1 || usize::from(count) > MOST_SOCKETS {
            return None;
        }
        let sockets = (0..count).map(|_| input.number()).collect::<Option<_>>()?;
        input.0.is_empty().then_some(Self {
            challenge,
            returned,
            serves: serves == 1,
            sockets,
        })
    }
}

impl<'a> Carried<'a> {
    /// Writes the packet in place of what is in `out`. Returns false if the message is too long, or if its source is an address of
    /// one link: then nothing is written.
    pub(crate) fn write(&self, head: &Head, count: u64, key: &Key, out: &mut Vec<u8>) -> bool {
        if self.bytes.len() > LONGEST || is_of_link(self.source) {
            return false;
        }
        head.write(MESSAGE, out);
        out.extend(count.to_be_bytes());
        out.extend(self.transaction.to_be_bytes());
        out.extend(bytes_of(self.source));
        out.extend(self.socket.to_be_bytes());
        out.extend_from_slice(self.bytes);
        seal(key, out);
        true
    }

    fn read(mut input: Input<'a>) -> Option<(u64, Self)> {
        let (count, transaction) = (input.number()?, input.number()?);
        let source = input.addr()?;
        let carried = Self {
            transaction,
            source,
            socket: u16::from_be_bytes(input.take()?),
            bytes: input.0,
        };
        Some((count, carried))
    }
}

/// Reads what a key has sealed; `None` for anything that this does not write.
pub(crate) fn read(sealed: &[u8]) -> Option<(Head, Content<'_>)> {
    let mut input = Input(sealed);
    if input.take::<4>()? != MAGIC {
        return None;
    }
    let [kind] = input.take()?;
    let head = Head {
        sender: u32::from_be_bytes(input.take()?),
        receiver: u32::from_be_bytes(input.take()?),
        session: input.number()?,
        receiver_session: input.number()?,
    };
    let content = match kind {
        HELLO => Content::Hello(Hello::read(input)?),
        MESSAGE => {
            let (count, carried) = Carried::read(input)?;
            Content::Message(count, carried)
        }
        _ => return None,
    };
    Some((head, content))
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn addr(&mut self) -> Option<SocketAddr> {
        let ip = IpAddr::V6(Ipv6Addr::from(self.take::<16>()?)).to_canonical();
        Some(SocketAddr::new(ip, u16::from_be_bytes(self.take()?)))
    }
}

fn seal(key: &Key, out: &mut Vec<u8>) {
    let seal = key.seal(out);
    out.extend(seal);
}

/// Whether an address has a meaning on one link of one machine only.
fn is_of_link(addr: SocketAddr) -> bool {
    match addr.ip() {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::invariants::received;
    use crate::keys::Keys;

    const HEAD_OF_TEST: Head = Head {
        sender: 1,
        receiver: 2,
        session: 3,
        receiver_session: 4,
    };

    fn keys() -> Keys {
        Keys::new(&[7; 16], &[[8; 16]])
    }

    fn canonical(addr: SocketAddr) -> SocketAddr {
        SocketAddr::new(addr.ip().to_canonical(), addr.port())
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            received(&bytes);
            received(&[&MAGIC[..], &[HELLO], &bytes].concat());
            received(&[&MAGIC[..], &[MESSAGE], &bytes].concat());
            // A seal alone makes nothing readable.
            let mut sealed = bytes;
            let seal = keys().current().seal(&sealed);
            sealed.extend(seal);
            let (_, inside) = keys().open(&sealed).unwrap();
            read(inside);
        }

        #[test]
        fn a_message_arrives_as_it_was(
            count: u64,
            transaction: u64,
            source: SocketAddr,
            socket: u16,
            bytes: Vec<u8>,
            changed: proptest::sample::Index,
        ) {
            let source = canonical(source);
            let carried = Carried { transaction, source, socket, bytes: &bytes };
            let mut packet = Vec::new();
            let written = carried.write(&HEAD_OF_TEST, count, keys().current(), &mut packet);
            prop_assert_eq!(written, !is_of_link(source));
            if written {
                let keys = keys();
                let (0, sealed) = keys.open(&packet).unwrap() else {
                    panic!("sealed with the first key");
                };
                prop_assert_eq!(read(sealed), Some((HEAD_OF_TEST, Content::Message(count, carried))));
                let at = changed.index(packet.len());
                packet[at] ^= 1;
                prop_assert_eq!(keys.open(&packet), None);
            }
        }

        #[test]
        fn a_hello_arrives_as_it_was(
            challenge: u64,
            returned: u64,
            serves: bool,
            sockets in proptest::collection::vec(any::<u64>(), 0..=MOST_SOCKETS),
        ) {
            let hello = Hello { challenge, returned, serves, sockets };
            let mut packet = b"before".to_vec();
            hello.write(&HEAD_OF_TEST, keys().current(), &mut packet);
            let keys = keys();
            let (_, sealed) = keys.open(&packet).unwrap();
            prop_assert_eq!(read(sealed), Some((HEAD_OF_TEST, Content::Hello(hello))));
            prop_assert_eq!(read(&sealed[..sealed.len() - 1]), None);
        }
    }

    #[test]
    fn a_message_that_does_not_fit_is_left_where_it_is() {
        let addr = "192.0.2.1:5060".parse().unwrap();
        let write = |length| {
            let bytes = vec![b'x'; length];
            let carried = Carried {
                transaction: 1,
                source: addr,
                socket: 0,
                bytes: &bytes,
            };
            let mut packet = Vec::new();
            let written = carried.write(&HEAD_OF_TEST, 1, keys().current(), &mut packet);
            (written, packet.len())
        };
        assert_eq!(write(LONGEST), (true, DATAGRAM));
        assert_eq!(write(LONGEST + 1), (false, 0));
    }
}
