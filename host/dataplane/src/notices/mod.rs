//! What operators are told about messages that were refused, dropped or could not be delivered.
//!
//! Each such message is one structured event at `debug`, written where it happens (`pipeline/tell.rs`, `transport/lost.rs`). What is the
//! operator's to mend is counted here as well, with a few examples: workers put them into queues of fixed size and never wait, and
//! [`notice_log`](crate::notice_log) on the control side writes the lines at `warn`: one at once, then one a minute for each kind.

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

/// Examples that one worker keeps of each kind until the control side takes them. More are counted only.
const EXAMPLES: usize = 4;

/// What an operator has to mend, by its cause. Failures of policies are kept with their seats: see [`Failures`].
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
    /// A request was not delivered: the next hop takes no connection, or broke it off.
    NextHopUnreachable,
    /// A message is longer than a datagram can be.
    DatagramTooLarge,
    /// The system refused to send a datagram.
    SendError,
    /// A peer reads so slowly that no more may wait for it.
    QueueFull,
    /// There are too many stream connections.
    TooManyConnections,
    /// The system had no room for datagrams that came in.
    ReceiveBufferFull,
    /// A source over UDP had its share of answers.
    AnswerLimit,
}

impl Trouble {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::UnknownNextHop,
        Self::Unresolved,
        Self::Loop,
        Self::NoSocket,
        Self::NextHopUnreachable,
        Self::DatagramTooLarge,
        Self::SendError,
        Self::QueueFull,
        Self::TooManyConnections,
        Self::ReceiveBufferFull,
        Self::AnswerLimit,
    ];

    /// The value of the field `event`, and the name in `portcullis.status`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownNextHop => "unknown_next_hop",
            Self::Unresolved => "next_hop_unresolved",
            Self::Loop => "loop_detected",
            Self::NoSocket => "no_socket",
            Self::NextHopUnreachable => "next_hop_unreachable",
            Self::DatagramTooLarge => "datagram_too_large",
            Self::SendError => "send_error",
            Self::QueueFull => "queue_full",
            Self::TooManyConnections => "too_many_connections",
            Self::ReceiveBufferFull => "receive_buffer_full",
            Self::AnswerLimit => "answer_limit",
        }
    }

    /// What happened, and what to do about it.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::UnknownNextHop => {
                "a policy names a next hop that is not in [relay.next-hops]; requests answered 500"
            }
            Self::Unresolved => "next hop has no address; requests answered 503",
            Self::Loop => {
                "next hop is this host itself; requests answered 482; `portcullis check` names such a next hop"
            }
            Self::NoSocket => {
                "no socket for a next hop: add an address of its family and transport to `listen`"
            }
            Self::NextHopUnreachable => "requests not delivered, answered 503",
            Self::DatagramTooLarge => "messages too large for a datagram",
            Self::SendError => "the system refused to send datagrams",
            Self::QueueFull => "a peer reads too slowly; messages to it were dropped",
            Self::TooManyConnections => "too many stream connections; further ones are refused",
            Self::ReceiveBufferFull => {
                "datagrams lost before they were read: the workers are too slow, or net.core.rmem_max is too small"
            }
            Self::AnswerLimit => {
                "a source over UDP exceeded its answers, further ones are not sent; if it is a trunk or a NAT, put it into the address table or raise `answers-per-second` in [sip]"
            }
        }
    }

    /// What a relay error is to the operator; none where the sender is at fault.
    pub fn of_relay(kind: RelayErrorKind) -> Option<Self> {
        match kind {
            RelayErrorKind::UnknownNextHop => Some(Self::UnknownNextHop),
            RelayErrorKind::Unresolved => Some(Self::Unresolved),
            RelayErrorKind::Loop => Some(Self::Loop),
            RelayErrorKind::NoSocket => Some(Self::NoSocket),
            RelayErrorKind::TooLarge => Some(Self::DatagramTooLarge),
            RelayErrorKind::NotPermitted
            | RelayErrorKind::NowhereToGo
            | RelayErrorKind::UnsupportedTransport
            | RelayErrorKind::BadRequest
            | RelayErrorKind::TooManyHops
            | RelayErrorKind::UnsupportedScheme => None,
        }
    }

    /// What a loss in a transport is to the operator; none where the peer is at fault.
    pub fn of_loss(lost: Lost) -> Option<Self> {
        match lost {
            Lost::Truncated => Some(Self::DatagramTooLarge),
            Lost::QueueFull => Some(Self::QueueFull),
            Lost::NoConnection => Some(Self::NextHopUnreachable),
            Lost::SendError => Some(Self::SendError),
            Lost::TooManyConnections => Some(Self::TooManyConnections),
            Lost::ReceiveBufferFull => Some(Self::ReceiveBufferFull),
            Lost::AnswerLimit => Some(Self::AnswerLimit),
            Lost::Unframed | Lost::Unanswerable => None,
        }
    }
}

/// One message that met with trouble.
#[derive(Clone, Debug)]
pub struct Example {
    /// When.
    pub at: SystemTime,
    /// The Call-ID as far as it could be read, cut to a length that a log line can bear.
    pub call_id: String,
    /// Where the message came from, or went to.
    pub peer: Option<SocketAddr>,
    /// The tenant that it is of; none for the operator.
    pub tenant: Option<Arc<str>>,
    /// The id of the decision on it, where decisions have one.
    pub decision: Option<DecisionId>,
    /// What was wrong.
    pub text: String,
}

impl Example {
    /// An example without more than this.
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

/// Everything that operators are told about messages. Workers write, the control side reads.
#[derive(Debug)]
pub struct Notices {
    ledgers: Box<[Ledger]>,
    last: [Mutex<Option<Example>>; Trouble::ALL.len()],
    /// The next hops that take no connections.
    pub hops: Hops,
    /// Those who follow messages live.
    pub traces: Traces,
}

/// What one worker notes. Aligned so that two workers never write to one cache line.
#[derive(Debug)]
#[repr(align(128))]
struct Ledger {
    counts: [Counter; Trouble::ALL.len()],
    examples: [ArrayQueue<Example>; Trouble::ALL.len()],
}

impl Notices {
    /// Notices of so many workers.
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

    /// Counts trouble that the worker of this number met `n` times. The example is made only if there is room for it. Only that worker
    /// may call this. It never waits.
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

    /// How often there was trouble of this kind.
    pub fn count(&self, trouble: Trouble) -> u64 {
        let counts = self.ledgers.iter().map(|ledger| &ledger.counts);
        counts.map(|counts| counts[trouble as usize].value()).sum()
    }

    /// The last example of this kind. For the control side.
    pub fn last(&self, trouble: Trouble) -> Option<Example> {
        self.take_examples(trouble);
        self.last[trouble as usize].lock().clone()
    }

    /// Takes the examples of this kind from the workers, and keeps the last.
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
