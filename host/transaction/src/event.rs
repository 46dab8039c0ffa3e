//! What the transactions report to their caller, and what they ask of it.

use std::time::Duration;

use portcullis_sip::Destination;

use crate::slab::Id;

/// Something for the caller of this crate to do or to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// The turn of a target has come. The caller resolves its name, writes the request, and calls
    /// [`Transactions::forward`](crate::Transactions::forward) or [`Transactions::fail`](crate::Transactions::fail).
    Start {
        /// The transaction.
        id: Id,
        /// The number of the target, which is part of its branch.
        branch: u8,
    },
    /// An address of a target has failed, and another one is tried: [`Event::Start`] follows (RFC 3263 §4.3).
    Failover {
        /// The transaction.
        id: Id,
        /// The target.
        target: T,
        /// The address.
        from: Destination,
        /// Its result.
        attempt: Attempt,
    },
    /// All targets have failed, and the plan says to ask. The caller calls [`Transactions::step`](crate::Transactions::step) or
    /// [`Transactions::answer`](crate::Transactions::answer).
    Ask {
        /// The transaction.
        id: Id,
    },
    /// A target has its result. A target whose time was over gets a second one if it answers 2xx after all.
    Outcome {
        /// The transaction.
        id: Id,
        /// The target.
        target: T,
        /// The result.
        attempt: Attempt,
        /// Where its request was sent last; `None` if it was not.
        to: Option<Destination>,
    },
    /// A transaction has its answer, and nothing more is expected of its targets. Its id names nothing from now on.
    Ended {
        /// The transaction.
        id: Id,
        /// How it ended.
        end: End,
    },
}

/// The result of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The final code: the received one, or the one that the failure counts as.
    pub code: u16,
    /// Where the code comes from.
    pub cause: Cause,
    /// Time since the target got its turn.
    pub took: Duration,
}

/// Why a target has the code that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It answered.
    Answered,
    /// It did not answer in time.
    NoAnswer,
    /// Timer C has fired: no final response to an INVITE came in time.
    RangOut,
    /// It was cancelled because its answer was not needed any more, and its 487 did not come in time.
    Cancelled,
    /// The request could not be sent to it, or the network reported an error.
    Unreachable,
    /// Its name has no address.
    Unresolved,
    /// The request must not be sent to it.
    Refused,
}

impl Cause {
    /// Whether the code is the proxy's own: it then loses to any received one.
    pub fn is_local(self) -> bool {
        match self {
            Self::Answered => false,
            Self::NoAnswer
            | Self::RangOut
            | Self::Cancelled
            | Self::Unreachable
            | Self::Unresolved
            | Self::Refused => true,
        }
    }
}

/// Why a request could not be sent to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A transport error: counts as a 503 of the target (RFC 3261 §16.9), or as a 430 along the flow of a client (RFC 5626 §5.3.1).
    Unreachable,
    /// No address: counts as a 503 of the target.
    Unresolved,
    /// It must not be sent there, for a reason with this code.
    Refused(u16),
}

impl Failure {
    /// The code and the cause of the attempt.
    pub(crate) fn result(self, is_along_flow: bool) -> (u16, Cause) {
        match self {
            Self::Unreachable if is_along_flow => (430, Cause::Unreachable),
            Self::Unreachable => (503, Cause::Unreachable),
            Self::Unresolved => (503, Cause::Unresolved),
            Self::Refused(code) => (code, Cause::Refused),
        }
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The final code that the sender got; `None` if it got none (RFC 4320).
    pub code: Option<u16>,
    /// Targets that got their turn.
    pub attempts: u8,
    /// Whether the sender cancelled, or [`Transactions::cancel`](crate::Transactions::cancel) in its place.
    pub cancelled: bool,
    /// Whether an ACK to a failure never came.
    pub unconfirmed: bool,
    /// 2xx responses after the first final one.
    pub late_successes: u8,
    /// Time from the request to the first response above 100; `None` if there was none.
    pub first_response: Option<Duration>,
    /// Time from the request to the first final response; `None` if there was none.
    pub final_response: Option<Duration>,
    /// Time from the request to the end.
    pub took: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_that_is_gone_has_a_code_of_its_own() {
        let unreachable = Failure::Unreachable;
        assert_eq!(unreachable.result(false), (503, Cause::Unreachable));
        assert_eq!(unreachable.result(true), (430, Cause::Unreachable));
        let refused = Failure::Refused(403);
        assert_eq!(refused.result(true), (403, Cause::Refused));
    }
}
