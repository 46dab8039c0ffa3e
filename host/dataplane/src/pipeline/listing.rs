//! What operators see of transactions, and what they may do with them.

use std::borrow::Cow;

use portcullis_sip::{Framing, HeaderName, Index, Message, StartLine, scan};
use portcullis_transaction::{Id, Listed, Time};

use super::Pipeline;
use super::stateful::STORED;
use crate::active::{ActiveTransaction, CallName, Page};

/// Most slots that one page looks at: a worker relays messages between two pages.
const SLOTS_OF_PAGE: u32 = 128;

impl Pipeline {
    /// The active transactions in the slots from here on: a page of at most this many, and of a call only if one is named.
    pub(crate) fn listed(&mut self, from: u32, only: Option<&CallName>, most: usize) -> Page {
        let worker = self.number;
        let Some(stateful) = self.stateful.as_deref_mut() else {
            return Page {
                transactions: Vec::new(),
                next: None,
            };
        };
        let now = stateful.now();
        let index = &mut stateful.index;
        let end = stateful.transactions.slots();
        let mut transactions = Vec::new();
        let mut slot = from;
        while slot < end.min(from.saturating_add(SLOTS_OF_PAGE)) && transactions.len() < most {
            let listed = stateful.transactions.listed(slot);
            let found = listed.and_then(|listed| active(worker, now, listed, only, index));
            transactions.extend(found);
            slot += 1;
        }
        Page {
            transactions,
            next: (slot < end).then_some(slot),
        }
    }

    /// Cancels an INVITE. Returns the number of targets that are not done yet; `None` if it does not wait for an answer.
    pub(crate) fn cancel(&mut self, id: Id) -> Option<usize> {
        let (stateful, mut tools) = self.stateful()?;
        let now = stateful.now();
        let pending = stateful.transactions.cancel(now, id);
        stateful.settle(&mut tools, None);
        pending
    }
}

/// What operators see of a transaction; `None` if it belongs to another call than the named one.
fn active(
    worker: usize,
    now: Time,
    listed: Listed<'_>,
    only: Option<&CallName>,
    index: &mut Index,
) -> Option<ActiveTransaction> {
    let scanned = scan(listed.request, Framing::Datagram, &STORED, index);
    debug_assert!(scanned.is_ok(), "a stored request was scanned before");
    let message = Message::new(listed.request, index);
    let cseq = message.cseq().map_or(0, |cseq| cseq.number);
    let value = |name| {
        let field = message.header(name);
        field.map_or(Cow::Borrowed(&b""[..]), |field| field.unfolded())
    };
    let call_id = value(HeaderName::CallId);
    let is_named = |call: &CallName| call.cseq == cseq && *call.call_id.as_bytes() == *call_id;
    if !only.is_none_or(is_named) {
        return None;
    }
    let method = match message.start_line() {
        StartLine::Request { method, .. } => method,
        StartLine::Response { .. } => b"",
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(ActiveTransaction {
        worker,
        id: listed.id,
        method: text(method),
        from: text(&value(HeaderName::From)),
        to: text(&value(HeaderName::To)),
        call_id: text(&call_id),
        cseq,
        is_invite: listed.is_invite,
        is_cancelled: listed.is_cancelled,
        code: listed.code,
        targets: listed.targets,
        seconds_left: listed.limit.since(now).as_secs(),
    })
}
