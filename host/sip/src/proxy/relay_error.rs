//! Why a request cannot be relayed, the response to it, and what the operator can do about it.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::arrival::Transport;
use crate::overload::Limit;

/// Why a request was not relayed. [`RelayError::code`] is the response to the sender; the text is for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RelayError {
    /// The policy named a next hop that is not configured.
    #[error(
        "the policy names the next hop `{0}`, which is not configured: add it to [relay.next-hops] or fix the policy"
    )]
    UnknownNextHop(String),
    /// The destination in Route or request URI is neither a next hop nor in a domain: this host is not an open relay.
    #[error(
        "`{0}` is neither a next hop nor in [relay] domains: add its host there if requests may go to it"
    )]
    NotPermitted(String),
    /// The request URI names this host, and there is no next hop for such requests.
    #[error(
        "`{0}` names this host and [relay] next-hop is not set: set it, or let the policy name a next hop"
    )]
    NowhereToGo(String),
    /// A name without an address, or not resolved yet.
    #[error("`{0}` has no address: check that the name resolves")]
    Unresolved(String),
    /// The next hop is this host.
    #[error("`{0}` is this host itself: a next hop must be another host")]
    Loop(String),
    /// The URI names a transport that this host does not support.
    #[error("`{0}` names an unsupported transport: use udp, tcp or tls")]
    UnsupportedTransport(String),
    /// A Route, or a request URI that determines the destination, with an unusable scheme: `tel`, or `sips` where the
    /// host has no TLS.
    #[error("`{0}` cannot be followed: its scheme is not sip, and no next hop accepts it")]
    UnsupportedScheme(String),
    /// A request URI with the scheme `sips`, which demands TLS and is never downgraded (RFC 5630 §5.3), and a next hop without TLS.
    #[error(
        "`{0}` demands TLS, and the next hop has none: write the next hop as \"sips:HOST\" or with transport=tls"
    )]
    Insecure(String),
    /// With the Via of this host and other additions, the request is too large for a datagram.
    #[error(
        "the request has {0} bytes with our Via, more than a datagram can carry: configure the next hop with transport=tcp"
    )]
    TooLarge(usize),
    /// There is no socket to send from.
    #[error(
        "no {transport} socket for {ip}: add an address of this family and transport to `listen`"
    )]
    NoSocket {
        /// The transport that the next hop needs.
        transport: Transport,
        /// The next hop.
        ip: IpAddr,
    },
    /// The next hop asks for fewer requests (RFC 7339), and this one is kept back.
    #[error("{addr} is overloaded and asks for {limit}")]
    Overloaded {
        /// The next hop.
        addr: SocketAddr,
        /// What it asks for.
        limit: Limit,
    },
    /// A Route value, or the request URI that strict routing takes from one, cannot be parsed.
    #[error("the Route value `{0}` is not a name-addr with a SIP URI")]
    BadRoute(String),
    /// The request URI cannot be parsed.
    #[error("the request URI `{0}` cannot be read")]
    BadUri(String),
    /// The flow that the Route of this host names is gone (RFC 5626 §5.3.1).
    #[error("the flow of the client is gone: {0}; the client has to register again")]
    FlowGone(&'static str),
    /// The Route of this host has a flow token that this host did not make, or that was changed.
    #[error(
        "`{0}` is no flow token of this host: it was changed, or made with a key that is not in `key-file`"
    )]
    ForgedFlow(String),
    /// The Route of this host has the flow token of a client of another tenant.
    #[error("`{0}` names a client of another tenant")]
    ForeignFlow(String),
    /// Max-Forwards is used up, or is not a number.
    #[error("Max-Forwards leaves no further hop")]
    TooManyHops,
    /// The message needs more edits than permitted, or is not a request with a valid Via.
    #[error("the message is not a request that can be relayed")]
    Unrelayable,
}

impl RelayError {
    /// The status code of the response.
    pub fn code(&self) -> u16 {
        match self {
            Self::BadRoute(_)
            | Self::BadUri(_)
            | Self::Unrelayable
            | Self::UnsupportedTransport(_) => 400,
            Self::NotPermitted(_) | Self::ForgedFlow(_) | Self::ForeignFlow(_) => 403,
            Self::NowhereToGo(_) => 404,
            Self::UnsupportedScheme(_) => 416,
            Self::Insecure(_) => 480,
            Self::FlowGone(_) => 430,
            Self::Loop(_) => 482,
            Self::TooManyHops => 483,
            Self::UnknownNextHop(_) => 500,
            Self::Unresolved(_) | Self::NoSocket { .. } | Self::Overloaded { .. } => 503,
            Self::TooLarge(_) => 513,
        }
    }

    /// The reason phrase of the response; it reveals nothing about the configuration.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRoute(_) => "Bad Route",
            Self::BadUri(_) => "Bad Request-URI",
            Self::UnsupportedTransport(_) => "Unsupported Transport",
            Self::NotPermitted(_) => "Relaying Denied",
            Self::ForgedFlow(_) | Self::ForeignFlow(_) => "Invalid Flow Token",
            Self::UnknownNextHop(_)
            | Self::NowhereToGo(_)
            | Self::Unresolved(_)
            | Self::Loop(_)
            | Self::UnsupportedScheme(_)
            | Self::Insecure(_)
            | Self::TooLarge(_)
            | Self::NoSocket { .. }
            | Self::Overloaded { .. }
            | Self::FlowGone(_)
            | Self::TooManyHops
            | Self::Unrelayable => crate::reason::standard_reason(self.code()),
        }
    }

    /// The kind of the error, for counters.
    pub const fn kind(&self) -> RelayErrorKind {
        match self {
            Self::UnknownNextHop(_) => RelayErrorKind::UnknownNextHop,
            Self::NotPermitted(_) => RelayErrorKind::NotPermitted,
            Self::NowhereToGo(_) => RelayErrorKind::NowhereToGo,
            Self::Unresolved(_) => RelayErrorKind::Unresolved,
            Self::Loop(_) => RelayErrorKind::Loop,
            Self::UnsupportedTransport(_) => RelayErrorKind::UnsupportedTransport,
            Self::UnsupportedScheme(_) => RelayErrorKind::UnsupportedScheme,
            Self::Insecure(_) => RelayErrorKind::Insecure,
            Self::TooLarge(_) => RelayErrorKind::TooLarge,
            Self::NoSocket { .. } => RelayErrorKind::NoSocket,
            Self::Overloaded { .. } => RelayErrorKind::Overloaded,
            Self::BadRoute(_) | Self::BadUri(_) | Self::Unrelayable => RelayErrorKind::BadRequest,
            Self::TooManyHops => RelayErrorKind::TooManyHops,
            Self::FlowGone(_) => RelayErrorKind::FlowGone,
            Self::ForgedFlow(_) | Self::ForeignFlow(_) => RelayErrorKind::BadFlow,
        }
    }

    /// An excerpt of bytes from a message, short enough for a log line.
    pub(super) fn shown(bytes: &[u8]) -> String {
        const MOST: usize = 200;
        let cut = bytes.get(..MOST).unwrap_or(bytes);
        cut.escape_ascii().to_string()
    }
}

/// The kind of a [`RelayError`]: a small closed set, for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RelayErrorKind {
    /// See [`RelayError::UnknownNextHop`].
    UnknownNextHop,
    /// See [`RelayError::NotPermitted`].
    NotPermitted,
    /// See [`RelayError::NowhereToGo`].
    NowhereToGo,
    /// See [`RelayError::Unresolved`].
    Unresolved,
    /// See [`RelayError::Loop`].
    Loop,
    /// See [`RelayError::UnsupportedTransport`].
    UnsupportedTransport,
    /// See [`RelayError::NoSocket`].
    NoSocket,
    /// A part of the request that cannot be parsed: see [`RelayError::BadRoute`], [`RelayError::BadUri`] and
    /// [`RelayError::Unrelayable`].
    BadRequest,
    /// See [`RelayError::TooManyHops`].
    TooManyHops,
    /// See [`RelayError::UnsupportedScheme`].
    UnsupportedScheme,
    /// See [`RelayError::TooLarge`].
    TooLarge,
    /// See [`RelayError::Insecure`].
    Insecure,
    /// See [`RelayError::FlowGone`].
    FlowGone,
    /// See [`RelayError::ForgedFlow`] and [`RelayError::ForeignFlow`].
    BadFlow,
    /// See [`RelayError::Overloaded`].
    Overloaded,
}

impl RelayErrorKind {
    /// Every kind, in the order of [`RelayErrorKind::index`].
    pub const ALL: &'static [Self] = &[
        Self::UnknownNextHop,
        Self::NotPermitted,
        Self::NowhereToGo,
        Self::Unresolved,
        Self::Loop,
        Self::UnsupportedTransport,
        Self::NoSocket,
        Self::BadRequest,
        Self::TooManyHops,
        Self::UnsupportedScheme,
        Self::TooLarge,
        Self::Insecure,
        Self::FlowGone,
        Self::BadFlow,
        Self::Overloaded,
    ];

    /// The place of this kind in [`RelayErrorKind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The kind as a label of a metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownNextHop => "unknown_next_hop",
            Self::NotPermitted => "not_permitted",
            Self::NowhereToGo => "nowhere_to_go",
            Self::Unresolved => "unresolved",
            Self::Loop => "loop",
            Self::UnsupportedTransport => "unsupported_transport",
            Self::NoSocket => "no_socket",
            Self::BadRequest => "bad_request",
            Self::TooManyHops => "too_many_hops",
            Self::UnsupportedScheme => "unsupported_scheme",
            Self::TooLarge => "too_large",
            Self::Insecure => "insecure",
            Self::FlowGone => "flow_gone",
            Self::BadFlow => "bad_flow",
            Self::Overloaded => "overloaded",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_place_and_a_label_of_its_own() {
        for (at, kind) in RelayErrorKind::ALL.iter().enumerate() {
            assert_eq!(kind.index(), at);
            assert!(
                RelayErrorKind::ALL[..at]
                    .iter()
                    .all(|other| other.label() != kind.label())
            );
        }
    }

    #[test]
    fn every_error_is_answered_with_a_failure_and_a_phrase() {
        for error in [
            RelayError::UnknownNextHop("a".into()),
            RelayError::NotPermitted("a".into()),
            RelayError::NowhereToGo("a".into()),
            RelayError::Unresolved("a".into()),
            RelayError::Loop("a".into()),
            RelayError::UnsupportedTransport("a".into()),
            RelayError::UnsupportedScheme("a".into()),
            RelayError::TooLarge(70_000),
            RelayError::NoSocket {
                transport: Transport::Tcp,
                ip: IpAddr::from([127, 0, 0, 1]),
            },
            RelayError::Overloaded {
                addr: SocketAddr::from(([127, 0, 0, 1], 5060)),
                limit: Limit::Loss(20),
            },
            RelayError::BadRoute("a".into()),
            RelayError::BadUri("a".into()),
            RelayError::FlowGone("a"),
            RelayError::ForgedFlow("a".into()),
            RelayError::ForeignFlow("a".into()),
            RelayError::TooManyHops,
            RelayError::Unrelayable,
        ] {
            assert!((400..600).contains(&error.code()), "{error}");
            assert!(!error.reason().is_empty());
        }
    }

    #[test]
    fn bytes_from_the_wire_are_shown_harmless_and_short() {
        assert_eq!(RelayError::shown(b"sip:a\r\n\xff"), "sip:a\\r\\n\\xff");
        assert!(RelayError::shown(&[b'x'; 9000]).len() <= 200);
    }
}
