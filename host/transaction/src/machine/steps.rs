//! What the owner of a machine must do.

/// What a client transaction does with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnResponse {
    /// It goes to the proxy core.
    Pass,
    /// It goes to the proxy core, and an ACK to the next hop (RFC 3261 §17.1.1.3).
    PassAndAck,
    /// A retransmission: only the ACK is sent again.
    AckAgain,
    /// A retransmission, or a response that means nothing in this state.
    Absorb,
}

/// What the timers of a client transaction demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientTimer {
    /// No timer was due.
    Nothing,
    /// The request is sent again.
    Resend,
    /// No final response came in time: timer B or F.
    TimedOut,
    /// The time for retransmissions is over: the transaction has ended.
    Ended,
}

/// What a server transaction does with a retransmission of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRetransmission {
    /// The last response is sent again, if there is one.
    Resend,
    /// Nothing is sent.
    Absorb,
}

/// What a server transaction does with an ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAck {
    /// It confirms a failure and ends here.
    Absorb,
    /// It is for a 2xx response, and no part of this transaction.
    Pass,
}

/// What the timers of a server transaction demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTimer {
    /// No timer was due.
    Nothing,
    /// A 100 (Trying) is sent.
    Trying,
    /// The final response is sent again.
    Resend,
    /// No ACK came in time: timer H. The transaction has ended.
    Unconfirmed,
    /// The time for retransmissions is over: the transaction has ended.
    Ended,
}
