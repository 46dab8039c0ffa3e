//! Transports of the table `trusted`.

use std::fmt;

/// A transport, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proto {
    /// Every transport.
    Any,
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// SCTP.
    Sctp,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Proto {
    /// All transports, in the order of Kamailio's numbers.
    pub const ALL: [Self; 7] = [
        Self::Any,
        Self::Udp,
        Self::Tcp,
        Self::Tls,
        Self::Sctp,
        Self::Ws,
        Self::Wss,
    ];

    /// Reads a name: `any`, `udp`, `tcp`, `tls`, `sctp`, `ws` or `wss`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|proto| proto.as_str().eq_ignore_ascii_case(text))
    }

    /// Returns the name, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Sctp => "sctp",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Returns Kamailio's number (`PROTO_NONE` 0, `PROTO_UDP` 1, …), as in dumps.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Whether a row with this transport matches a query for `asked`.
    pub(super) fn fits(self, asked: Self) -> bool {
        self == Self::Any || asked == Self::Any || self == asked
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
