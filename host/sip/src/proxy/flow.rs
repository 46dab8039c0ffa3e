//! Flow tokens: the user part of a Record-Route or Path value of this host, which names the flow of a client (RFC 5626 §5.1, §5.2).
//!
//! A client behind a NAT, or one that speaks WebSocket, can be reached by the flow that it opened and by nothing else: its Contact names an
//! address that means nothing here. This host therefore writes the flow into its own URI: `sip:flow-TOKEN@HOST;lr`. Whoever has the URI
//! in a Route, as a registrar has with Path (RFC 3327) and the other end of a dialog with Record-Route, sends requests back to the flow.
//!
//! A token is, in base32 (RFC 4648 §6) with lower-case letters and without padding: a byte of flags, the number of the socket, the minute, the
//! owner if there is one, the peer's address and port, the number of the connection if there is one, and a keyed hash of all of these. So no
//! state is needed, and nobody else can make one: where a token leads, a client came from.

use std::net::{IpAddr, SocketAddr};

use super::Proxy;
use super::branch::Origin;
use super::minute::Minute;
use super::stream::Stream;
use crate::arrival::{Arrival, ConnectionId, Transport};
use crate::key::{Key, Keys};

/// The socket and the source of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    /// The number of the socket.
    pub(super) socket: u32,
    pub(super) addr: SocketAddr,
    /// The stream; none for a datagram.
    pub(super) stream: Option<Stream>,
}

impl Flow {
    /// The flow that a request came over.
    pub(super) fn of(proxy: &Proxy, arrival: &Arrival) -> Self {
        let origin = Origin::of(&proxy.identity, arrival, proxy.now());
        Self {
            socket: origin.socket,
            addr: arrival.source,
            stream: origin.stream,
        }
    }

    pub(super) fn transport(&self) -> Transport {
        Stream::transport(self.stream)
    }
}

/// A flow as a token names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) flow: Flow,
    /// The owner of the request that the token was made for: see [`Routes::owner`](crate::Routes::owner).
    pub(super) owner: Option<u64>,
    /// When it was made.
    pub(super) minute: Minute,
}

/// A token that is none of this host: forged, cut off, or sealed with a key that is not known any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forged;

/// What the user part of a token begins with.
const PREFIX: &[u8] = b"flow-";

/// Flags: what a token has.
const IS_V6: u8 = 1;
const HAS_OWNER: u8 = 2;
/// The number of the transport follows these flags.
const TRANSPORT: u32 = 2;

/// Bytes of the seal.
const SEAL: usize = 8;

/// Bytes of the longest token: flags, socket, minute, owner, address, port, connection, seal.
const LONGEST: usize = 1 + 2 + 4 + 8 + 16 + 2 + 8 + SEAL;

impl Token {
    /// Whether this user part means a token, valid or not.
    pub(super) fn is_meant(user: &[u8]) -> bool {
        let prefix = user.get(..PREFIX.len());
        prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX))
    }

    /// Writes the user part of a URI; false, without a byte, if the socket has no number.
    pub(super) fn write(&self, key: &Key, out: &mut Vec<u8>) -> bool {
        let Ok(socket) = u16::try_from(self.flow.socket) else {
            return false;
        };
        let mut bytes = Bytes::default();
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags = self.flow.transport().number() << TRANSPORT
            | flag(self.flow.addr.is_ipv6(), IS_V6)
            | flag(self.owner.is_some(), HAS_OWNER);
        bytes.push(&[flags]);
        bytes.push(&socket.to_be_bytes());
        bytes.push(&self.minute.0.to_be_bytes());
        if let Some(owner) = self.owner {
            bytes.push(&owner.to_be_bytes());
        }
        match self.flow.addr.ip() {
            IpAddr::V4(ip) => bytes.push(&ip.octets()),
            IpAddr::V6(ip) => bytes.push(&ip.octets()),
        };
        bytes.push(&self.flow.addr.port().to_be_bytes());
        if let Some(stream) = self.flow.stream {
            bytes.push(&stream.connection.0.to_be_bytes());
        }
        let seal = key.flow(bytes.written());
        bytes.push(&seal.to_be_bytes());
        out.extend_from_slice(PREFIX);
        write_base32(bytes.written(), out);
        true
    }

    /// Reads the output of [`Token::write`], in upper or lower case.
    pub(super) fn read(keys: &Keys, user: &[u8]) -> Result<Self, Forged> {
        let digits = user.get(PREFIX.len()..).ok_or(Forged)?;
        let mut bytes = Bytes::default();
        read_base32(digits, &mut bytes).ok_or(Forged)?;
        let (values, seal) = bytes.written().split_last_chunk::<SEAL>().ok_or(Forged)?;
        let seal = u64::from_be_bytes(*seal);
        if !keys.all().any(|key| key.flow(values) == seal) {
            return Err(Forged);
        }
        Self::of_values(values).ok_or(Forged)
    }

    fn of_values(mut values: &[u8]) -> Option<Self> {
        let [flags] = take(&mut values)?;
        let socket = u16::from_be_bytes(take(&mut values)?);
        let minute = Minute(u32::from_be_bytes(take(&mut values)?));
        let owner = match flags & HAS_OWNER {
            0 => None,
            _ => Some(u64::from_be_bytes(take(&mut values)?)),
        };
        let ip = match flags & IS_V6 {
            0 => IpAddr::from(take::<4>(&mut values)?),
            _ => IpAddr::from(take::<16>(&mut values)?),
        };
        let port = u16::from_be_bytes(take(&mut values)?);
        let transport = Transport::of_number(flags >> TRANSPORT)?;
        let stream = match transport.is_reliable() {
            false => None,
            true => Some(Stream {
                transport,
                connection: ConnectionId(u64::from_be_bytes(take(&mut values)?)),
            }),
        };
        values.is_empty().then_some(Self {
            flow: Flow {
                socket: socket.into(),
                addr: SocketAddr::new(ip, port),
                stream,
            },
            owner,
            minute,
        })
    }
}

/// The bytes of a token.
struct Bytes {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Bytes {
    /// Appends bytes; false if they do not fit.
    fn push(&mut self, more: &[u8]) -> bool {
        let end = self.length + more.len();
        let Some(place) = self.bytes.get_mut(self.length..end) else {
            return false;
        };
        place.copy_from_slice(more);
        self.length = end;
        true
    }

    fn written(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self {
            bytes: [0; LONGEST],
            length: 0,
        }
    }
}

/// The first bytes, which are removed.
fn take<const COUNT: usize>(values: &mut &[u8]) -> Option<[u8; COUNT]> {
    let (first, rest) = values.split_first_chunk()?;
    *values = rest;
    Some(*first)
}

const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

fn write_base32(bytes: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut count) = (0_u32, 0);
    let mut digit = |bits: u32| out.push(DIGITS[(bits & 31) as usize]);
    for &byte in bytes {
        bits = bits << 8 | u32::from(byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            digit(bits >> count);
        }
    }
    if count > 0 {
        digit(bits << (5 - count));
    }
}

/// Reads what [`write_base32`] writes, and nothing else: a token has one form.
fn read_base32(digits: &[u8], bytes: &mut Bytes) -> Option<()> {
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits {
        let value = match digit.to_ascii_lowercase() {
            letter @ b'a'..=b'z' => letter - b'a',
            number @ b'2'..=b'7' => number - b'2' + 26,
            _ => return None,
        };
        bits = (bits << 5 | u32::from(value)) & 0xfff;
        count += 5;
        if count >= 8 {
            count -= 8;
            if !bytes.push(&[(bits >> count) as u8]) {
                return None;
            }
        }
    }
    let rest = bits & ((1 << count) - 1);
    (count < 5 && rest == 0).then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: [u8; 16] = [7; 16];

    fn written(token: &Token) -> Vec<u8> {
        let mut user = Vec::new();
        assert!(token.write(&Key::new(&SECRET), &mut user));
        user
    }

    fn read(user: &[u8]) -> Result<Token, Forged> {
        Token::read(&Keys::new(&SECRET, &[]), user)
    }

    fn tokens() -> impl Strategy<Value = Token> {
        let streams = Transport::ALL.into_iter().filter(|it| it.is_reliable());
        let stream = (
            prop::sample::select(streams.collect::<Vec<_>>()),
            any::<u64>(),
        );
        let stream = stream.prop_map(|(transport, connection)| Stream {
            transport,
            connection: ConnectionId(connection),
        });
        let flow = (
            any::<u16>(),
            any::<IpAddr>(),
            any::<u16>(),
            prop::option::of(stream),
        );
        let flow = flow.prop_map(|(socket, ip, port, stream)| Flow {
            socket: socket.into(),
            addr: SocketAddr::new(ip, port),
            stream,
        });
        (flow, any::<Option<u64>>(), any::<u32>()).prop_map(|(flow, owner, minute)| Token {
            flow,
            owner,
            minute: Minute(minute),
        })
    }

    #[test]
    fn a_token_of_a_datagram_is_short() {
        let token = Token {
            flow: Flow {
                socket: 0,
                addr: "192.0.2.10:40000".parse().unwrap(),
                stream: None,
            },
            owner: None,
            minute: Minute(1),
        };
        assert_eq!(written(&token).len(), PREFIX.len() + 34);
    }

    #[test]
    fn a_socket_without_a_number_gets_no_token() {
        let mut user = Vec::new();
        let token = Token {
            flow: Flow {
                socket: u32::MAX,
                addr: "192.0.2.10:40000".parse().unwrap(),
                stream: None,
            },
            owner: None,
            minute: Minute(1),
        };
        assert!(!token.write(&Key::new(&SECRET), &mut user));
        assert!(user.is_empty());
    }

    #[test]
    fn an_earlier_key_is_known_and_a_foreign_one_is_not() {
        let token = Token {
            flow: Flow {
                socket: 3,
                addr: "[2001:db8::1]:5060".parse().unwrap(),
                stream: Some(Stream {
                    transport: Transport::Tls,
                    connection: ConnectionId(9),
                }),
            },
            owner: Some(5),
            minute: Minute(77),
        };
        let user = written(&token);
        let with = |keys: &Keys| Token::read(keys, &user);
        assert_eq!(with(&Keys::new(&[8; 16], &[[9; 16], SECRET])), Ok(token));
        assert_eq!(with(&Keys::new(&[8; 16], &[])), Err(Forged));
    }

    proptest! {
        #[test]
        fn a_token_comes_back(token in tokens(), upper: bool) {
            let mut user = written(&token);
            prop_assert!(Token::is_meant(&user));
            prop_assert!(user.iter().all(|byte| byte.is_ascii_lowercase() || b"234567-".contains(byte)));
            if upper {
                user.make_ascii_uppercase();
            }
            prop_assert_eq!(read(&user), Ok(token));
        }

        #[test]
        fn a_changed_token_is_forged(token in tokens(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut user = written(&token);
            let at = PREFIX.len() + at.index(user.len() - PREFIX.len());
            prop_assume!(!user[at].eq_ignore_ascii_case(&byte));
            user[at] = byte;
            prop_assert_eq!(read(&user), Err(Forged));
        }

        #[test]
        fn a_part_of_a_token_is_forged_and_so_is_more(token in tokens(), cut in any::<prop::sample::Index>(), more in "[a-z2-7]{1,80}") {
            let user = written(&token);
            prop_assert_eq!(read(&user[..cut.index(user.len())]), Err(Forged));
            prop_assert_eq!(read(&[&user, more.as_bytes()].concat()), Err(Forged));
        }

        #[test]
        fn other_bytes_are_forged(user in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(read(&user), Err(Forged));
            prop_assert_eq!(read(&[PREFIX, &user].concat()), Err(Forged));
        }
    }
}
