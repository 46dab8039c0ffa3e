//! How requests travel.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A transport of SIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Datagrams.
    #[default]
    Udp,
    /// One connection for each source.
    Tcp,
    /// One connection with TLS for each source (RFC 3261 §26.3.2.1).
    Tls,
    /// One WebSocket for each source (RFC 7118).
    Ws,
    /// One WebSocket with TLS for each source.
    Wss,
}

impl Transport {
    /// Whether each source has a connection.
    pub fn has_connections(self) -> bool {
        match self {
            Self::Udp => false,
            Self::Tcp | Self::Tls | Self::Ws | Self::Wss => true,
        }
    }

    /// Whether connections begin with a handshake of TLS.
    pub fn has_tls(self) -> bool {
        match self {
            Self::Tls | Self::Wss => true,
            Self::Udp | Self::Tcp | Self::Ws => false,
        }
    }

    /// Whether messages are those of WebSocket.
    pub fn is_websocket(self) -> bool {
        match self {
            Self::Ws | Self::Wss => true,
            Self::Udp | Self::Tcp | Self::Tls => false,
        }
    }

    /// The name in Via (RFC 3261 §20.42, RFC 7118 §5.2).
    pub(crate) fn in_via(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// The value of the parameter `transport` of a URI; `None` for the one that needs none.
    pub(crate) fn in_uri(self) -> Option<&'static str> {
        match self {
            Self::Udp => None,
            Self::Tcp => Some("tcp"),
            Self::Tls => Some("tls"),
            Self::Ws | Self::Wss => Some("ws"),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.in_via())
    }
}
