//! What the network reports about a datagram.

use std::net::SocketAddr;

/// What the network reports about a datagram. Anybody can forge it: it counts only if what it quotes was hard to guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'e> {
    /// The destination of the datagram.
    pub to: SocketAddr,
    /// The first bytes of the datagram, as many as the reporting router has quoted. It may be none.
    pub quoted: &'e [u8],
    /// What happened to it.
    pub problem: Problem,
}

/// What happened to a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// No way to the network, host, protocol or port.
    Unreachable,
    /// A router or the host forbids it.
    Prohibited,
    /// A header field of the packet was wrong.
    Parameter,
    /// Another report: a packet was too large or took too long. These do not show that the destination is gone (RFC 3261 §18.4).
    Other,
}

impl Problem {
    /// Whether the transport user must learn of it (RFC 3261 §18.4).
    pub fn is_failure(self) -> bool {
        match self {
            Self::Unreachable | Self::Prohibited | Self::Parameter => true,
            Self::Other => false,
        }
    }

    /// The meaning of an ICMP message (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1).
    #[cfg(target_os = "linux")]
    pub(crate) fn of_icmp(kind: u8, code: u8) -> Self {
        match (kind, code) {
            // Fragmentation needed.
            (3, 4) => Self::Other,
            (3, 9 | 10 | 13) => Self::Prohibited,
            (3, _) => Self::Unreachable,
            (12, _) => Self::Parameter,
            _ => Self::Other,
        }
    }

    /// The meaning of an ICMPv6 message (RFC 4443 §3).
    #[cfg(target_os = "linux")]
    pub(crate) fn of_icmpv6(kind: u8, code: u8) -> Self {
        match (kind, code) {
            (1, 1 | 5 | 6) => Self::Prohibited,
            (1, _) => Self::Unreachable,
            (4, _) => Self::Parameter,
            _ => Self::Other,
        }
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icmp_messages_mean_what_the_rfcs_say() {
        for (kind, code, expected) in [
            (3, 0, Problem::Unreachable),
            (3, 1, Problem::Unreachable),
            (3, 2, Problem::Unreachable),
            (3, 3, Problem::Unreachable),
            (3, 4, Problem::Other),
            (3, 13, Problem::Prohibited),
            (4, 0, Problem::Other),
            (11, 0, Problem::Other),
            (12, 0, Problem::Parameter),
        ] {
            assert_eq!(Problem::of_icmp(kind, code), expected, "{kind} {code}");
        }
        for (kind, code, expected) in [
            (1, 0, Problem::Unreachable),
            (1, 1, Problem::Prohibited),
            (1, 3, Problem::Unreachable),
            (1, 4, Problem::Unreachable),
            (2, 0, Problem::Other),
            (3, 0, Problem::Other),
            (4, 1, Problem::Parameter),
        ] {
            assert_eq!(Problem::of_icmpv6(kind, code), expected, "{kind} {code}");
        }
    }
}
