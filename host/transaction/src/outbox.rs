//! Messages to send, in order.

use std::collections::VecDeque;
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
    RequestCopy,
    /// The ACK to a failure.
    Ack,
    /// A CANCEL, or the same again.
    Cancel,
    /// A response to the sender of the request.
    Response,
    /// The same again.
    ResponseCopy,
}

/// The messages that have not been polled yet. Their bytes are in one piece of memory, which is kept.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    queue: VecDeque<Queued>,
}

#[derive(Debug)]
struct Queued {
    what: What,
    id: Option<Id>,
    branch: Option<u8>,
    to: Destination,
    place: Range<usize>,
}

impl Outbox {
    pub(crate) fn push(
        &mut self,
        what: What,
        id: Option<Id>,
        branch: Option<u8>,
        to: Destination,
        bytes: &[u8],
    ) {
        if self.queue.is_empty() {
            self.bytes.clear();
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.queue.push_back(Queued {
            what,
            id,
            branch,
            to,
            place: start..self.bytes.len(),
        });
    }

    pub(crate) fn pop(&mut self) -> Option<Outgoing<'_>> {
        let queued = self.queue.pop_front()?;
        Some(Outgoing {
            what: queued.what,
            id: queued.id,
            branch: queued.branch,
            to: queued.to,
            bytes: &self.bytes[queued.place],
        })
    }
}
