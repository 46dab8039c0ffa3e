//! The labels of metrics: each a small, fixed set of values.

use portcullis_guard::Reason;
use portcullis_policy::{FailureKind, VerdictKind};
use portcullis_sip::{DropReason, RelayErrorKind};

/// A label of a metric: a fixed, small set of values. An enum of this crate or of a library can be one.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];

    /// The index of this value in [`Label::ALL`].
    fn index(self) -> usize;

    /// The text of this value.
    fn label(self) -> &'static str;
}

/// Declares an enum whose values are labels.
macro_rules! labels {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $value,)+ }

        impl $name {
            /// How many values there are.
            pub const COUNT: usize = <Self as Label>::ALL.len();
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$value,)+];

            #[inline]
            fn index(self) -> usize {
                self as usize
            }

            fn label(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }
    };
}

labels! {
    /// The method of a request. Extension methods share one value, so that senders cannot create time series.
    Method {
        /// INVITE
        Invite = "INVITE",
        /// ACK
        Ack = "ACK",
        /// BYE
        Bye = "BYE",
        /// CANCEL
        Cancel = "CANCEL",
        /// OPTIONS
        Options = "OPTIONS",
        /// REGISTER
        Register = "REGISTER",
        /// SUBSCRIBE
        Subscribe = "SUBSCRIBE",
        /// NOTIFY
        Notify = "NOTIFY",
        /// MESSAGE
        Message = "MESSAGE",
        /// INFO
        Info = "INFO",
        /// UPDATE
        Update = "UPDATE",
        /// PRACK
        Prack = "PRACK",
        /// REFER
        Refer = "REFER",
        /// PUBLISH
        Publish = "PUBLISH",
        /// Any other method.
        Other = "other",
    }
}

impl Method {
    /// The label for a method as received; methods are case-sensitive (RFC 3261 §7.1).
    #[inline]
    pub fn of(method: &[u8]) -> Self {
        match method {
            b"INVITE" => Self::Invite,
            b"ACK" => Self::Ack,
            b"BYE" => Self::Bye,
            b"CANCEL" => Self::Cancel,
            b"OPTIONS" => Self::Options,
            b"REGISTER" => Self::Register,
            b"SUBSCRIBE" => Self::Subscribe,
            b"NOTIFY" => Self::Notify,
            b"MESSAGE" => Self::Message,
            b"INFO" => Self::Info,
            b"UPDATE" => Self::Update,
            b"PRACK" => Self::Prack,
            b"REFER" => Self::Refer,
            b"PUBLISH" => Self::Publish,
            _ => Self::Other,
        }
    }
}

labels! {
    /// The transport of a message.
    Wire {
        /// UDP
        Udp = "udp",
        /// TCP
        Tcp = "tcp",
        /// TLS
        Tls = "tls",
        /// WebSocket
        Ws = "ws",
        /// WebSocket over TLS
        Wss = "wss",
    }
}

labels! {
    /// The result of a TLS handshake.
    HandshakeResult {
        /// A new session of TLS 1.2.
        Tls12 = "tls1.2",
        /// A new session of TLS 1.3.
        Tls13 = "tls1.3",
        /// A resumed session.
        Resumed = "resumed",
        /// It took too long.
        Timeout = "timeout",
        /// The peer closed the connection.
        Closed = "closed",
        /// The peer showed no certificate, and must.
        NoCertificate = "no_certificate",
        /// The certificate of the peer is not valid, revoked, or for another name.
        BadCertificate = "bad_certificate",
        /// The peer refused: mostly because it does not accept the certificate of this host.
        Refused = "refused",
        /// What the peer sent is no TLS, or no version or cipher that is accepted.
        Protocol = "protocol",
        /// A client asked for a name that no certificate has.
        UnknownName = "unknown_name",
        /// The address of the client has too many handshakes; none was begun.
        Limited = "limited",
    }
}

labels! {
    /// The result of a target of a transaction.
    AttemptResult {
        /// A 2xx response.
        Success = "success",
        /// Another final response.
        Failure = "failure",
        /// No response in time: timer B or F, or the time that the policy gave the target.
        NoAnswer = "no_answer",
        /// No final response in time: timer C.
        RangOut = "rang_out",
        /// It was cancelled, and did not confirm that.
        Cancelled = "cancelled",
        /// The request could not be sent, or the network reported an error.
        Unreachable = "unreachable",
        /// Its name has no address.
        Unresolved = "unresolved",
        /// Requests must not be sent there.
        Refused = "refused",
    }
}

labels! {
    /// The final response of a transaction, by class.
    FinalClass {
        /// 200 to 299
        Success = "2xx",
        /// 300 to 399
        Redirection = "3xx",
        /// 400 to 499
        ClientError = "4xx",
        /// 500 to 599
        ServerError = "5xx",
        /// 600 to 699
        GlobalFailure = "6xx",
        /// None: the request was not an INVITE, and no target answered (RFC 4320 §4.2).
        None = "none",
    }
}

impl FinalClass {
    /// The class of a final status code; `None` for no response.
    pub fn of(code: Option<u16>) -> Self {
        match code {
            None => Self::None,
            Some(..300) => Self::Success,
            Some(300..400) => Self::Redirection,
            Some(400..500) => Self::ClientError,
            Some(500..600) => Self::ServerError,
            Some(600..) => Self::GlobalFailure,
        }
    }
}

labels! {
    /// What became of a message for a transaction of another worker.
    HandoverResult {
        /// The other worker handled it.
        Taken = "taken",
        /// Its queue was full.
        Full = "full",
    }
}

labels! {
    /// What an ICMP error concerns.
    IcmpError {
        /// A request to a target of a transaction, which fails.
        Target = "target",
        /// Another datagram.
        Other = "other",
    }
}

labels! {
    /// The kind of a retransmission.
    Retransmission {
        /// A request that a transaction absorbed.
        RequestReceived = "request_received",
        /// A copy of a request that was answered, with other lines than that request: not answered.
        RequestChanged = "request_changed",
        /// A request to a target.
        RequestSent = "request_sent",
        /// A response to the sender of a request.
        ResponseSent = "response_sent",
    }
}

labels! {
    /// Why a request was rejected before its policy call.
    Shed {
        /// The tenant exceeds its request rate.
        Rate = "rate",
        /// The tenant's policy exceeds its share of the worker's time.
        Share = "share",
        /// The worker is overloaded, and the tenant exceeds its part of the time.
        Pressure = "pressure",
        /// The tenant's policy failed too often and is out of service.
        Breaker = "breaker",
        /// The table of transactions is full, or the tenant exceeds its part of it; after the policy call.
        Transactions = "transactions",
        /// The generation that decided has been replaced long ago; only for calls after a failure.
        Replaced = "replaced",
    }
}

labels! {
    /// Why a transport could not carry a message.
    Lost {
        /// A datagram longer than a SIP datagram can be.
        Truncated = "truncated",
        /// A stream that was closed because the next SIP message could not be located in it.
        Unframed = "unframed",
        /// The peer reads too slowly: its send queue is full.
        QueueFull = "queue_full",
        /// The connection to the next hop could not be opened, or broke.
        NoConnection = "no_connection",
        /// The system failed to send the message.
        SendError = "send_error",
        /// The connection was closed at once, or not opened: there are too many.
        TooManyConnections = "too_many_connections",
        /// A connection of a load balancer that did not begin with a valid PROXY header.
        BadProxyHeader = "bad_proxy_header",
        /// The kernel's receive buffer overflowed: the workers are too slow.
        ReceiveBufferFull = "receive_buffer_full",
        /// A rejection of a request that must not be answered: an ACK.
        Unanswerable = "unanswerable",
        /// A response to a source over UDP that reached its limit, a retransmission too, or a request within a dialog to such a source.
        AnswerLimit = "answer_limit",
        /// A message along the flow of a client that has closed its connection.
        FlowGone = "flow_gone",
        /// The source is banned.
        Banned = "banned",
        /// The source is held, and nothing distinguishes the request from a forged one.
        Held = "held",
        /// The source is above its rate.
        Flood = "flood",
    }
}

labels! {
    /// The result of verifying the dialog seal of a request.
    InDialog {
        /// The request follows its dialog.
        Followed = "followed",
        /// The seal is not ours, or belongs to another dialog: policies are called.
        Forged = "forged",
        /// The dialog began too long ago: policies are called.
        Expired = "expired",
        /// The tenant of the dialog no longer exists: policies are called.
        Ownerless = "ownerless",
    }
}

impl Label for FailureKind {
    const ALL: &'static [Self] = &Self::ALL;

    fn index(self) -> usize {
        Self::index(self)
    }

    fn label(self) -> &'static str {
        self.as_str()
    }
}

impl Label for VerdictKind {
    const ALL: &'static [Self] = &Self::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn label(self) -> &'static str {
        self.as_str()
    }
}

impl Label for RelayErrorKind {
    const ALL: &'static [Self] = Self::ALL;

    fn index(self) -> usize {
        Self::index(self)
    }

    fn label(self) -> &'static str {
        Self::label(self)
    }
}

impl Label for Reason {
    const ALL: &'static [Self] = &Self::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn label(self) -> &'static str {
        self.as_str()
    }
}

impl Label for DropReason {
    const ALL: &'static [Self] = Self::ALL;

    fn index(self) -> usize {
        Self::index(self)
    }

    fn label(self) -> &'static str {
        Self::label(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_match_the_order_of_values() {
        for (at, method) in Method::ALL.iter().enumerate() {
            assert_eq!(method.index(), at);
            if *method != Method::Other {
                assert_eq!(Method::of(method.label().as_bytes()), *method);
            }
        }
        assert_eq!(Method::of(b"invite"), Method::Other);
    }

    #[test]
    fn values_of_one_label_differ() {
        fn check<L: Label>() {
            for (at, value) in L::ALL.iter().enumerate() {
                assert_eq!(value.index(), at);
                assert!(
                    L::ALL[..at]
                        .iter()
                        .all(|other| other.label() != value.label())
                );
            }
        }
        check::<VerdictKind>();
        check::<Wire>();
        check::<Lost>();
        check::<InDialog>();
        check::<FailureKind>();
        check::<DropReason>();
        check::<Reason>();
        check::<RelayErrorKind>();
    }
}
