//! Messages to send, in order.

use std::ops::Range;

use portcullis_sip::Destination;

use crate::slab::Id;

/// A message to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing<'o> {
    /// What it is.
    pub what: What,
    /// The transaction; `None` for one that has ended.
    pub id: Option<Id>,
    /// The number of the target, for messages to one. If a [`What::Request`] cannot be sent, the caller calls
    /// [`Transactions::fail`](crate::Transactions::fail) with it.
    pub branch: Option<u8>,
    /// Where it goes.
    pub to: Destination,
    /// The message.
    pub bytes: &'o [u8],
}

/// The kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// A request to a target.
    Request,
    /// The same again.
    RequestRetransmission,
    /// The ACK to a failure, or the same again for a retransmission of it.
    Ack,
    /// A CANCEL to a target.
    Cancel,
    /// The same again.
    CancelRetransmission,
    /// The response of a target, to the sender of the request.
    Response,
    /// The same again, for a copy of the request.
    ResponseRetransmission,
    /// The same again, although no copy has come: timer G, or a 2xx to an INVITE that the target sends again.
    ResponseUnasked,
    /// A response of this host, to the sender of the request: 100, the 200 to a CANCEL, 408, 487, or the answer of a policy.
    Reply,
    /// The same again, for a copy of the request.
    ReplyRetransmission,
    /// The same again, although no copy has come: timer G.
    ReplyUnasked,
}

impl What {
    /// The same message, sent again; a response for a copy of its request.
    pub(crate) fn again(self) -> Self {
        match self {
            Self::Request | Self::RequestRetransmission => Self::RequestRetransmission,
            Self::Ack => Self::Ack,
            Self::Cancel | Self::CancelRetransmission => Self::CancelRetransmission,
            Self::Response | Self::ResponseRetransmission | Self::ResponseUnasked => {
                Self::ResponseRetransmission
            }
            Self::Reply | Self::ReplyRetransmission | Self::ReplyUnasked => {
                Self::ReplyRetransmission
            }
        }
    }

    /// The same message, sent again although nobody has asked.
    pub(crate) fn unasked(self) -> Self {
        match self.again() {
            Self::ResponseRetransmission => Self::ResponseUnasked,
            Self::ReplyRetransmission => Self::ReplyUnasked,
            again @ (Self::Request
            | Self::RequestRetransmission
            | Self::Ack
            | Self::Cancel
            | Self::CancelRetransmission
            | Self::Response
            | Self::ResponseUnasked
            | Self::Reply
            | Self::ReplyUnasked) => again,
        }
    }
}

/// Messages to send, in order. Their bytes are in one piece of memory, which is kept and used again.
///
/// The caller of this crate has one of its own, which [`Transactions::take_sends`](crate::Transactions::take_sends) exchanges for the full one:
/// it can then use the transactions while it sends.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    queue: Vec<Queued>,
}

/// Bytes of memory that an empty outbox keeps.
const MOST_KEPT: usize = 1 << 20;

#[derive(Debug)]
struct Queued {
    what: What,
    id: Option<Id>,
    branch: Option<u8>,
    to: Destination,
    place: Range<usize>,
}

impl Outbox {
    /// Number of messages.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The messages, in the order in which they must be sent.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Outgoing<'_>> {
        self.queue.iter().map(|queued| queued.outgoing(&self.bytes))
    }

    /// Removes the messages that are not to be sent.
    pub fn retain(&mut self, mut is_sent: impl FnMut(Outgoing<'_>) -> bool) {
        let Self { bytes, queue } = self;
        queue.retain(|queued| is_sent(queued.outgoing(bytes)));
    }

    /// Removes all messages.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.bytes.clear();
        if self.bytes.capacity() > MOST_KEPT {
            *self = Self::default();
        }
    }

    pub(crate) fn push(
        &mut self,
        what: What,
        id: Option<Id>,
        branch: Option<u8>,
        to: Destination,
        bytes: &[u8],
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.queue.push(Queued {
            what,
            id,
            branch,
            to,
            place: start..self.bytes.len(),
        });
    }
}

impl Queued {
    /// The message, whose bytes are among these.
    fn outgoing<'o>(&self, bytes: &'o [u8]) -> Outgoing<'o> {
        Outgoing {
            what: self.what,
            id: self.id,
            branch: self.branch,
            to: self.to,
            bytes: &bytes[self.place.clone()],
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sip::Transport;

    use super::*;

    #[test]
    fn an_outbox_gives_its_messages_in_order_and_keeps_little_memory() {
        let mut outbox = Outbox::default();
        let to = Destination {
            transport: Transport::Udp,
            addr: "192.0.2.1:5060".parse().unwrap(),
            from: None,
            connection: None,
            name: None,
            is_flow: false,
        };
        for (what, bytes) in [(What::Request, &b"first"[..]), (What::Ack, b"second")] {
            outbox.push(what, None, Some(1), to, bytes);
        }
        let sent: Vec<_> = outbox.iter().map(|sent| (sent.what, sent.bytes)).collect();
        assert_eq!(
            sent,
            [(What::Request, &b"first"[..]), (What::Ack, b"second")]
        );
        outbox.retain(|sent| sent.what == What::Ack);
        let sent: Vec<_> = outbox.iter().map(|sent| sent.bytes).collect();
        assert_eq!(sent, [b"second"]);
        outbox.clear();
        assert!(outbox.is_empty());
        outbox.push(What::Request, None, None, to, &vec![0; MOST_KEPT + 1]);
        assert_eq!(outbox.len(), 1);
        outbox.clear();
        assert_eq!(outbox.bytes.capacity(), 0);
    }
}
