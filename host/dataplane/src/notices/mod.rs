//! Notices for operators about messages that were refused, dropped or not delivered.
//!
//! Each such message is one structured event at `debug`, logged where it happens (`pipeline/reporter.rs`). Conditions that
//! the operator has to fix are also counted here, with a few examples: workers put them into queues of fixed size and never block, and
//! [`notice_log`](crate::notice_log) on the control side logs them at `warn`: the first immediately, then one line per minute for each
//! kind.

mod call_id;
mod failures;
pub(crate) mod hops;
pub(crate) mod pace;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;
use portcullis_metrics::{Counter, Lost};
use portcullis_policy::DecisionId;
use portcullis_sip::RelayErrorKind;

use crate::trace::Traces;

pub(crate) use call_id::cut;
pub use failures::{Failures, PolicyFailure};
pub use hops::{DownHop, Hops};

/// Examples of each kind that one worker keeps until the control side takes them. Further ones are only counted.
const EXAMPLES: usize = 4;

/// A condition that an operator has to fix, by cause. Failures of policies are kept with their seats: see [`Failures`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// A policy names a next hop that is not configured.
    UnknownNextHop,
    /// A next hop whose name has no address.
    Unresolved,
    /// A request was to be relayed to this host itself (482).
    Loop,
    /// There is no socket of the address family and transport that the next hop needs.
    NoSocket,
    /// A next hop asks for fewer requests.
    NextHopOverloaded,
    /// A request was not delivered: the next hop refuses connections, or the connection broke.
    NextHopUnreachable,
    /// A message is too long for a datagram.
    DatagramTooLarge,
    /// The system refused to send a datagram.
    SendError,
    /// A peer reads too slowly, and its send queue is full.
    QueueFull,
    /// There are too many stream connections.
    TooManyConnections,
    /// A load balancer in `proxy-protocol` opens connections without a valid PROXY header.
    BadProxyHeader,
    /// The kernel's receive buffer overflowed and datagrams were lost.
    ReceiveBufferFull,
    /// A source over UDP reached its limit of responses.
    AnswerLimit,
    /// A limit in `[transactions]` is reached.
    TransactionsFull,
    /// A worker takes messages for its transactions too slowly from the others.
    HandoverFull,
}

impl Trouble {
    /// Every kind, in the order of their discriminants.
    pub const ALL: [Self; 15] = [
        Self::UnknownNextHop,
        Self::Unresolved,
        Self::Loop,
        Self::NoSocket,
        Self::NextHopOverloaded,
        Self::NextHopUnreachable,
        Self::DatagramTooLarge,
        Self::SendError,
        Self::QueueFull,
        Self::TooManyConnections,
        Self::BadProxyHeader,
        Self::ReceiveBufferFull,
        Self::AnswerLimit,
        Self::TransactionsFull,
        Self::HandoverFull,
    ];

    /// The value of the log field `event`, and the name in `portcullis.status`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownNextHop => "unknown_next_hop",
            Self::Unresolved => "next_hop_unresolved",
            Self::Loop => "loop_detected",
            Self::NoSocket => "no_socket",
            Self::NextHopOverloaded => "next_hop_overloaded",
            Self::NextHopUnreachable => "next_hop_unreachable",
            Self::DatagramTooLarge => "datagram_too_large",
            Self::SendError => "send_error",
            Self::QueueFull => "queue_full",
            Self::TooManyConnections => "too_many_connections",
            Self::BadProxyHeader => "bad_proxy_header",
            Self::ReceiveBufferFull => "receive_buffer_full",
            Self::AnswerLimit => "answer_limit",
            Self::TransactionsFull => "transactions_full",
            Self::HandoverFull => "handover_full",
        }
    }

    /// What happened, and what to do about it.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::UnknownNextHop => {
                "a policy names a next hop that is not in [relay.next-hops]; requests answered 500"
            }
            Self::Unresolved => "next hop has no address",
            Self::Loop => "next hop is this host itself; `portcullis check` names such a next hop",
            Self::NoSocket => {
                "no socket for a next hop: add an address of its family and transport to `listen`"
            }
            Self::NextHopOverloaded => {
                "a next hop is overloaded and asks for fewer requests (RFC 7339); some are not relayed to it"
            }
            Self::NextHopUnreachable => "requests not delivered to a next hop",
            Self::DatagramTooLarge => "messages too large for a datagram",
            Self::SendError => "the system refused to send datagrams",
            Self::QueueFull => "a peer reads too slowly; messages to it were dropped",
            Self::TooManyConnections => "too many stream connections; further ones are refused",
            Self::BadProxyHeader => {
                "connections of a load balancer closed: let it send PROXY headers (HAProxy: send-proxy-v2, nginx: proxy_protocol on), or remove its address from `proxy-protocol` in [streams]"
            }
            Self::ReceiveBufferFull => {
                "datagrams lost before they were read: the workers are too slow, or net.core.rmem_max is too small"
            }
            Self::AnswerLimit => {
                "a source over UDP exceeded its answers, further ones are not sent; if it is a trunk or a NAT, put it into the address table, or raise `unproved-bytes` or `answers-per-second` in [sip]"
            }
            Self::TransactionsFull => {
                "too many transactions, of all tenants or of one; new requests are answered 503: raise `active` or `memory` in [transactions], or share the load among hosts"
            }
            Self::HandoverFull => {
                "a worker is too slow for the messages of its transactions that other workers receive; messages were dropped"
            }
        }
    }

    /// The kind for a relay error; `None` if the sender is at fault.
    pub fn of_relay(kind: RelayErrorKind) -> Option<Self> {
        match kind {
            RelayErrorKind::UnknownNextHop => Some(Self::UnknownNextHop),
            RelayErrorKind::Unresolved => Some(Self::Unresolved),
            RelayErrorKind::Loop => Some(Self::Loop),
            RelayErrorKind::NoSocket => Some(Self::NoSocket),
            RelayErrorKind::Overloaded => Some(Self::NextHopOverloaded),
            RelayErrorKind::TooLarge => Some(Self::DatagramTooLarge),
            RelayErrorKind::NotPermitted
            | RelayErrorKind::NowhereToGo
            | RelayErrorKind::UnsupportedTransport
            | RelayErrorKind::BadRequest
            | RelayErrorKind::TooManyHops
            | RelayErrorKind::UnsupportedScheme
            | RelayErrorKind::Insecure
            | RelayErrorKind::FlowGone
            | RelayErrorKind::BadFlow => None,
        }
    }

    /// The kind for a message lost in a transport; `None` if the peer is at fault.
    pub fn of_loss(lost: Lost) -> Option<Self> {
        match lost {
            Lost::Truncated => Some(Self::DatagramTooLarge),
            Lost::QueueFull => Some(Self::QueueFull),
            Lost::NoConnection => Some(Self::NextHopUnreachable),
            Lost::SendError => Some(Self::SendError),
            Lost::TooManyConnections => Some(Self::TooManyConnections),
            Lost::BadProxyHeader => Some(Self::BadProxyHeader),
            Lost::ReceiveBufferFull => Some(Self::ReceiveBufferFull),
            Lost::AnswerLimit => Some(Self::AnswerLimit),
            Lost::Unframed
            | Lost::Unanswerable
            | Lost::FlowGone
            | Lost::Banned
            | Lost::Held
            | Lost::Flood => None,
        }
    }
}

/// One affected message.
#[derive(Clone, Debug)]
pub struct Example {
    /// When.
    pub at: SystemTime,
    /// The Call-ID as far as it could be parsed, truncated for the log.
    pub call_id: String,
    /// The source or destination of the message.
    pub peer: Option<SocketAddr>,
    /// The tenant of the message; `None` for the operator.
    pub tenant: Option<Arc<str>>,
    /// The id of the decision on the message; `None` without `[records]`.
    pub decision: Option<DecisionId>,
    /// Description of the error.
    pub text: String,
}

impl Example {
    /// An example with this description only.
    pub fn new(call_id: &[u8], peer: Option<SocketAddr>, text: String) -> Self {
        Self {
            at: SystemTime::now(),
            call_id: cut(call_id),
            peer,
            tenant: None,
            decision: None,
            text,
        }
    }
}

/// All notices about messages. Workers write, the control side reads.
#[derive(Debug)]
pub struct Notices {
    ledgers: Box<[Ledger]>,
    last: [Mutex<Option<Example>>; Trouble::ALL.len()],
    /// The next hops that refuse connections.
    pub hops: Hops,
    /// The live traces.
    pub traces: Traces,
}

/// The notices of one worker. Aligned so that two workers never write to the same cache line.
#[derive(Debug)]
#[repr(align(128))]
struct Ledger {
    counts: [Counter; Trouble::ALL.len()],
    examples: [ArrayQueue<Example>; Trouble::ALL.len()],
}

impl Notices {
    /// Notices of this many workers.
    pub fn new(workers: usize) -> Self {
        let ledger = |_| Ledger {
            counts: Default::default(),
            examples: std::array::from_fn(|_| ArrayQueue::new(EXAMPLES)),
        };
        Self {
            ledgers: (0..workers).map(ledger).collect(),
            last: Default::default(),
            hops: Hops::default(),
            traces: Traces::default(),
        }
    }

    /// Counts `n` occurrences on the worker with this number. The example is built only if there is space for it. Only that worker may call
    /// this. Never blocks.
    pub fn note(&self, worker: usize, trouble: Trouble, n: u64, example: impl FnOnce() -> Example) {
        let Some(ledger) = self.ledgers.get(worker) else {
            return;
        };
        let examples = &ledger.examples[trouble as usize];
        if !examples.is_full() {
            let _full = examples.push(example());
        }
        ledger.counts[trouble as usize].add(n);
    }

    /// Number of occurrences of this kind.
    pub fn count(&self, trouble: Trouble) -> u64 {
        let counts = self.ledgers.iter().map(|ledger| &ledger.counts);
        counts.map(|counts| counts[trouble as usize].value()).sum()
    }

    /// The last example of this kind. For the control side.
    pub fn last(&self, trouble: Trouble) -> Option<Example> {
        self.take_examples(trouble);
        self.last[trouble as usize].lock().clone()
    }

    /// Takes the examples of this kind from the workers, and keeps the last one.
    fn take_examples(&self, trouble: Trouble) {
        let queues = self.ledgers.iter().map(|ledger| &ledger.examples);
        let examples =
            queues.flat_map(|queues| std::iter::from_fn(|| queues[trouble as usize].pop()));
        if let Some(newest) = examples.max_by_key(|example| example.at) {
            *self.last[trouble as usize].lock() = Some(newest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::call_id::CALL_ID;
    use super::*;

    fn example(text: &str) -> Example {
        Example::new(b"id@host", None, text.to_owned())
    }

    #[test]
    fn each_kind_has_its_place_and_a_name_of_its_own() {
        for (at, kind) in Trouble::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, at);
            let same = |other: &&Trouble| other.label() == kind.label();
            assert_eq!(Trouble::ALL.iter().filter(same).count(), 1);
        }
    }

    #[test]
    fn all_are_counted_and_few_are_kept() {
        let notices = Notices::new(2);
        let mut made = 0;
        for _ in 0..100 {
            notices.note(0, Trouble::Loop, 1, || {
                made += 1;
                example("a")
            });
        }
        assert_eq!(made, EXAMPLES, "an example without room is not even made");
        notices.note(1, Trouble::Loop, 2, || example("b"));
        notices.note(1, Trouble::SendError, 1, || example("c"));
        assert_eq!(notices.count(Trouble::Loop), 102);
        assert_eq!(notices.last(Trouble::Loop).unwrap().text, "b");
        assert_eq!(notices.last(Trouble::SendError).unwrap().text, "c");
        assert!(notices.last(Trouble::QueueFull).is_none());
        notices.note(0, Trouble::Loop, 1, || example("d"));
        assert_eq!(notices.last(Trouble::Loop).unwrap().text, "d");
    }

    #[test]
    fn a_long_call_id_is_cut() {
        assert_eq!(cut(&[b'x'; 9000]).len(), CALL_ID);
        assert_eq!(cut(b"a\xff"), "a\u{fffd}");
    }
}
