//! The source of a received message, and the destination of a message to send.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use thiserror::Error;

/// A transport protocol as Via (RFC 3261 §20.42) and `;transport=` (§19.1.1) name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A byte stream, framed by Content-Length.
    Tcp,
    /// TLS over TCP (RFC 3261 §26.2), framed like TCP.
    Tls,
    /// WebSocket (RFC 7118): each of its messages is a SIP message. Only clients open connections.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Transport {
    /// Every transport, in the order of [`Transport::number`].
    pub const ALL: [Self; 5] = [Self::Udp, Self::Tcp, Self::Tls, Self::Ws, Self::Wss];

    /// The transports that lead to servers, in the order of preference: only clients open connections of WebSocket.
    pub const OF_SERVERS: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    /// The place of this transport in [`Transport::ALL`].
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The transport with this number; `None` for a number that no transport has.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The upper-case name that goes into a Via header.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// The lower-case name that goes into a URI's `transport` parameter.
    pub const fn parameter(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Whether the transport retransmits lost bytes by itself (RFC 3261 §17).
    pub const fn is_reliable(self) -> bool {
        match self {
            Self::Udp => false,
            Self::Tcp | Self::Tls | Self::Ws | Self::Wss => true,
        }
    }

    /// The name in the `transport` parameter of a URI: WebSocket has one name, with TLS and without (RFC 7118 §5.2.3).
    pub const fn uri_parameter(self) -> &'static str {
        match self {
            Self::Udp | Self::Tcp | Self::Tls | Self::Ws => self.parameter(),
            Self::Wss => Self::Ws.parameter(),
        }
    }

    /// Whether only clients open connections, so that a destination without a connection cannot be reached.
    pub const fn is_websocket(self) -> bool {
        match self {
            Self::Udp | Self::Tcp | Self::Tls => false,
            Self::Ws | Self::Wss => true,
        }
    }

    /// Whether the transport meets the demand of a `sips` URI: TLS on this hop (RFC 3261 §26.2.2).
    pub const fn is_secure(self) -> bool {
        match self {
            Self::Udp | Self::Tcp | Self::Ws => false,
            Self::Tls | Self::Wss => true,
        }
    }

    /// The port of a `sip` URI or a Via that names none (RFC 3261 §19.1.2, §18.2.2; RFC 7118 §5.2.2).
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }

    /// Parses a transport name, in upper or lower case; `None` for a transport that this host does not support.
    pub fn from_token(token: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|transport| token.eq_ignore_ascii_case(transport.token().as_bytes()))
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(name: &str) -> Result<Self, UnknownTransport> {
        Self::from_token(name.as_bytes()).ok_or_else(|| UnknownTransport(name.to_owned()))
    }
}

/// A transport name that this host does not support.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown transport {0:?}: use udp, tcp, tls, ws or wss")]
pub struct UnknownTransport(pub String);

/// Identifies one stream connection of this process. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// How a message was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arrival {
    /// The sender's address; an IPv4-mapped IPv6 source is already plain IPv4.
    pub source: SocketAddr,
    /// The local address that it was sent to.
    pub local: SocketAddr,
    /// The transport it came over.
    pub transport: Transport,
    /// The stream it came over; `None` for datagrams.
    pub connection: Option<ConnectionId>,
}

/// Where a message is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The transport to send over.
    pub transport: Transport,
    /// The peer's address.
    pub addr: SocketAddr,
    /// The local socket to send from; `None` lets the sender choose by address family.
    pub from: Option<SocketAddr>,
    /// The stream to use if it is still open; otherwise a stream to `addr` is opened, unless `is_flow` is set.
    pub connection: Option<ConnectionId>,
    /// Over TLS, the [mark](crate::mark) of the name that the certificate of the peer must have; `None`: it must have the address.
    pub name: Option<u64>,
    /// Whether only the flow of a client may be used (RFC 5626 §5.3): if its stream is gone, or its address cannot be reached, the message
    /// fails with 430 (Flow Failed).
    pub is_flow: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transport_names_are_read_in_any_case_and_written_in_one() {
        assert_eq!("udp".parse(), Ok(Transport::Udp));
        assert_eq!(Transport::from_token(b"Tcp"), Some(Transport::Tcp));
        assert_eq!(Transport::Tcp.to_string(), "TCP");
        assert_eq!(Transport::Udp.parameter(), "udp");
        assert!(Transport::Tcp.is_reliable());
        assert!(!Transport::Udp.is_reliable());
        for transport in Transport::ALL {
            assert_eq!(Transport::of_number(transport.number()), Some(transport));
            assert!(transport.is_reliable() || !transport.is_secure());
        }
        assert_eq!(Transport::of_number(Transport::ALL.len() as u8), None);
    }

    #[test]
    fn an_unknown_transport_is_named_with_its_mend() {
        let error = "sctp".parse::<Transport>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown transport \"sctp\": use udp, tcp, tls, ws or wss"
        );
    }
}
