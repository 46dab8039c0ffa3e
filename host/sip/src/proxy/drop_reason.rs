//! Why a message is dropped: neither relayed nor answered.

use std::fmt;

/// Why a message was dropped: a small closed set, for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// Only line ends: a keep-alive (RFC 5626 §4.4.1).
    KeepAlive,
    /// The first line is neither a SIP request nor a SIP response.
    NotSip,
    /// The datagram came from port 0, where no answer can go.
    SourcePortZero,
    /// A request without a Via, or an ACK whose top Via cannot be read.
    UnreadableVia,
    /// An ACK that would be refused; ACKs are never answered (RFC 3261 §17.1.1.3).
    BadAck,
    /// A response that cannot be read (RFC 3261 §18.3).
    BadResponse,
    /// A response whose top Via is not ours (RFC 3261 §16.11).
    ForeignResponse,
    /// A response whose top Via names this host with a branch that this host did not make.
    ForgedResponse,
    /// A response whose next Via does not lead to the source of its request: a branch of ours was redirected to another address.
    TurnedResponse,
    /// A response to a request of more than a day ago.
    LateResponse,
    /// A response without a Via under ours: of its own, this host sends only [pings](crate::Ping), which have other branches.
    ResponseToUs,
    /// A response whose next Via leads nowhere: no address, a broadcast address (RFC 4475 §3.3.10), one of this host.
    NoWayBack,
}

impl DropReason {
    /// Every reason, in the order of [`DropReason::index`].
    pub const ALL: &'static [Self] = &[
        Self::KeepAlive,
        Self::NotSip,
        Self::SourcePortZero,
        Self::UnreadableVia,
        Self::BadAck,
        Self::BadResponse,
        Self::ForeignResponse,
        Self::ForgedResponse,
        Self::TurnedResponse,
        Self::LateResponse,
        Self::ResponseToUs,
        Self::NoWayBack,
    ];

    /// The place of this reason in [`DropReason::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason as a label of a metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep_alive",
            Self::NotSip => "not_sip",
            Self::SourcePortZero => "source_port_zero",
            Self::UnreadableVia => "unreadable_via",
            Self::BadAck => "bad_ack",
            Self::BadResponse => "bad_response",
            Self::ForeignResponse => "foreign_response",
            Self::ForgedResponse => "forged_response",
            Self::TurnedResponse => "turned_response",
            Self::LateResponse => "late_response",
            Self::ResponseToUs => "response_to_us",
            Self::NoWayBack => "no_way_back",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place_and_a_label_of_its_own() {
        for (at, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), at);
            assert!(
                DropReason::ALL[..at]
                    .iter()
                    .all(|other| other.label() != reason.label())
            );
        }
    }
}
