//! The Homer Encapsulation Protocol, version 3: the packet that carries one message or one line of a log.
//!
//! A packet is "HEP3", its length, and chunks: vendor (0), type, length with these six bytes, content. Numbers are big-endian.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_sip::Transport;

/// The most bytes that a packet can have over UDP over IPv4.
pub(crate) const MOST: usize = 65_507;

/// What the payload of a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A SIP message.
    Sip,
    /// A line of a log.
    Log,
}

impl Kind {
    /// The value of the chunk for the protocol type.
    const fn number(self) -> u8 {
        match self {
            Self::Sip => 1,
            Self::Log => 100,
        }
    }
}

/// Where a message was received or is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The transport.
    pub transport: Transport,
    /// Its source.
    pub from: SocketAddr,
    /// Its destination.
    pub to: SocketAddr,
}

/// What all packets of a host have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// The number of the host.
    pub id: u32,
    /// The name of the host; empty without one.
    pub node: String,
    /// The password for the capture server; empty without one.
    pub password: String,
}

/// Writes a packet. Returns `None` if it would be too long for a datagram.
pub fn packet(
    agent: &Agent,
    kind: Kind,
    way: &Way,
    time: SystemTime,
    correlation: &[u8],
    payload: &[u8],
) -> Option<Vec<u8>> {
    // All chunks of fixed size take less than 128 bytes, with their headers and those of the others.
    let own = agent.node.len() + agent.password.len() + correlation.len() + payload.len();
    if own + 160 > MOST {
        return None;
    }
    let mut packet = Packet {
        bytes: Vec::with_capacity(own + 160),
    };
    packet.bytes.extend_from_slice(b"HEP3\0\0");
    packet.addresses(way);
    packet.chunk(0x07, &way.from.port().to_be_bytes());
    packet.chunk(0x08, &way.to.port().to_be_bytes());
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // The field has 32 bits, without a sign: until 2106.
    packet.chunk(0x09, &(since.as_secs() as u32).to_be_bytes());
    packet.chunk(0x0a, &since.subsec_micros().to_be_bytes());
    packet.chunk(0x0b, &[kind.number()]);
    packet.chunk(0x0c, &agent.id.to_be_bytes());
    if !agent.password.is_empty() {
        packet.chunk(0x0e, agent.password.as_bytes());
    }
    if !correlation.is_empty() {
        packet.chunk(0x11, correlation);
    }
    if !agent.node.is_empty() {
        packet.chunk(0x13, agent.node.as_bytes());
    }
    packet.chunk(0x0f, payload);
    Some(packet.finish())
}

struct Packet {
    bytes: Vec<u8>,
}

impl Packet {
    fn addresses(&mut self, way: &Way) {
        let protocol = match way.transport {
            Transport::Udp => 17,
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => 6,
        };
        let family = |family: u8| (family, protocol);
        let (from, to) = (way.from.ip().to_canonical(), way.to.ip().to_canonical());
        // The format has one family for both.
        let (family, protocol) = match (from, to) {
            (IpAddr::V4(_), IpAddr::V4(_)) => family(2),
            (IpAddr::V6(_), _) | (_, IpAddr::V6(_)) => family(10),
        };
        self.chunk(0x01, &[family]);
        self.chunk(0x02, &[protocol]);
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                self.chunk(0x03, &from.octets());
                self.chunk(0x04, &to.octets());
            }
            (IpAddr::V6(_), _) | (_, IpAddr::V6(_)) => {
                self.chunk(0x05, &octets(from));
                self.chunk(0x06, &octets(to));
            }
        }
    }

    fn chunk(&mut self, kind: u16, content: &[u8]) {
        // A packet is shorter than 65,536 bytes, so each of its chunks is, too.
        let length = (content.len() + 6) as u16;
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(content);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u16;
        self.bytes[4..6].copy_from_slice(&length.to_be_bytes());
        self.bytes
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn way(from: &str, to: &str, transport: Transport) -> Way {
        Way {
            transport,
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
        }
    }

    /// Reads the chunks of a packet.
    fn chunks(packet: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let number = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        assert_eq!(&packet[..4], b"HEP3");
        assert_eq!(usize::from(number(4)), packet.len());
        let mut at = 6;
        let mut chunks = Vec::new();
        while at < packet.len() {
            let (vendor, kind, length) = (number(at), number(at + 2), usize::from(number(at + 4)));
            assert_eq!(vendor, 0);
            chunks.push((kind, packet[at + 6..at + length].to_vec()));
            at += length;
        }
        chunks
    }

    #[test]
    fn a_packet_has_these_bytes() {
        let agent = Agent {
            id: 2001,
            node: "edge".into(),
            password: "pw".into(),
        };
        let time = UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_007);
        let way = way("192.0.2.1:5060", "198.51.100.2:5070", Transport::Udp);
        let packet = packet(&agent, Kind::Sip, &way, time, b"id@x", b"OPTIONS").unwrap();
        let expected = b"HEP3\x00\x86\
            \0\0\0\x01\0\x07\x02\
            \0\0\0\x02\0\x07\x11\
            \0\0\0\x03\0\x0a\xc0\0\x02\x01\
            \0\0\0\x04\0\x0a\xc6\x33\x64\x02\
            \0\0\0\x07\0\x08\x13\xc4\
            \0\0\0\x08\0\x08\x13\xce\
            \0\0\0\x09\0\x0a\x65\x53\xf1\x00\
            \0\0\0\x0a\0\x0a\0\0\0\x07\
            \0\0\0\x0b\0\x07\x01\
            \0\0\0\x0c\0\x0a\0\0\x07\xd1\
            \0\0\0\x0e\0\x08pw\
            \0\0\0\x11\0\x0aid@x\
            \0\0\0\x13\0\x0aedge\
            \0\0\0\x0f\0\x0dOPTIONS";
        assert_eq!(packet, expected);
    }

    #[test]
    fn a_log_over_ipv6_and_tcp_has_no_optional_chunks() {
        let way = way("[2001:db8::1]:5060", "[2001:db8::2]:0", Transport::Tcp);
        let agent = Agent::default();
        let packet = packet(&agent, Kind::Log, &way, UNIX_EPOCH, b"", b"{}").unwrap();
        let chunks = chunks(&packet);
        let kinds: Vec<_> = chunks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 15]);
        assert_eq!((&chunks[0].1[..], &chunks[1].1[..]), (&[10][..], &[6][..]));
        assert_eq!(chunks[8].1, [100]);
        assert_eq!(chunks[2].1.len(), 16);
    }

    #[test]
    fn what_does_not_fit_into_a_datagram_is_no_packet() {
        let way = way("192.0.2.1:1", "192.0.2.1:2", Transport::Udp);
        let of = |payload: usize| {
            let payload = vec![b'x'; payload];
            packet(
                &Agent::default(),
                Kind::Sip,
                &way,
                UNIX_EPOCH,
                b"",
                &payload,
            )
        };
        assert_eq!(of(MOST), None);
        assert!(of(MOST - 160).is_some_and(|packet| packet.len() <= MOST));
    }

    proptest! {
        #[test]
        fn every_packet_can_be_read(
            from: SocketAddr,
            to: SocketAddr,
            id: u32,
            node in "[ -~]{0,40}",
            password in "[ -~]{0,40}",
            correlation: Vec<u8>,
            payload: Vec<u8>,
        ) {
            let agent = Agent { id, node, password };
            let way = Way { transport: Transport::Udp, from, to };
            let packet = packet(&agent, Kind::Sip, &way, UNIX_EPOCH, &correlation, &payload);
            let chunks = chunks(&packet.unwrap());
            let of = |kind| chunks.iter().find(|(other, _)| *other == kind).map(|(_, content)| content.clone());
            prop_assert_eq!(of(15), Some(payload));
            prop_assert_eq!(of(17).unwrap_or_default(), correlation);
            prop_assert_eq!(of(14).unwrap_or_default(), agent.password.as_bytes());
            prop_assert_eq!(of(19).unwrap_or_default(), agent.node.as_bytes());
            prop_assert_eq!(of(7), Some(from.port().to_be_bytes().to_vec()));
            prop_assert_eq!(of(8), Some(to.port().to_be_bytes().to_vec()));
        }
    }
}
