//! What operators see of transactions, and what they may do with them.

use std::borrow::Cow;

use portcullis_sip::{Framing, HeaderName, Index, Message, StartLine, scan};
use portcullis_transaction::{Id, Listed, Time};

use super::STORED;
use crate::active::{ActiveTransaction, CallName, CancelledPage, Page};
use crate::pipeline::Pipeline;

/// Most slots that one page looks at: a worker relays messages between two pages.
const SLOTS_OF_PAGE: u32 = 128;

/// Most bytes of a listed method, From and To: a list has up to 10,000 of each, and a sender may write as much as a message can hold.
const MOST_OF_TEXT: usize = 256;

impl Pipeline {
    /// The active transactions in the slots from here on: a page of at most this many.
    pub(crate) fn listed(&mut self, from: u32, most: usize) -> Page {
        self.page(from, None, most)
    }

    /// Cancels the INVITE transactions of a call in the slots from here on: a page of at most this many.
    pub(crate) fn cancel(&mut self, from: u32, call: &CallName, most: usize) -> CancelledPage {
        let page = self.page(from, Some(call), most);
        let found = page.transactions.len();
        let pending = page.transactions.into_iter();
        let pending = pending.filter_map(|found| self.cancel_transaction(found.id));
        CancelledPage {
            found,
            pending: pending.reduce(|all, more| all + more),
            next: page.next,
        }
    }

    /// A page of the active transactions, of a call only if one is named.
    fn page(&mut self, from: u32, only: Option<&CallName>, most: usize) -> Page {
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
    fn cancel_transaction(&mut self, id: Id) -> Option<usize> {
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
    Some(ActiveTransaction {
        worker,
        id: listed.id,
        method: cut(method),
        from: cut(&value(HeaderName::From)),
        to: cut(&value(HeaderName::To)),
        // Whole, because it names the call. A longer one than 2,048 bytes is not accepted.
        call_id: String::from_utf8_lossy(&call_id).into_owned(),
        cseq,
        is_invite: listed.is_invite,
        is_cancelled: listed.is_cancelled,
        code: listed.code,
        targets: listed.targets,
        seconds_left: listed.limit.since(now).as_secs(),
    })
}

/// The text, with an ellipsis if only its beginning is listed.
fn cut(text: &[u8]) -> String {
    let Some(beginning) = text
        .get(..MOST_OF_TEXT)
        .filter(|some| some.len() < text.len())
    else {
        return String::from_utf8_lossy(text).into_owned();
    };
    // Not within a character.
    let is_character = |&byte: &u8| byte & 0xc0 != 0x80;
    let end = match text.get(MOST_OF_TEXT).is_none_or(is_character) {
        true => MOST_OF_TEXT,
        false => beginning
            .iter()
            .rposition(is_character)
            .unwrap_or(MOST_OF_TEXT),
    };
    String::from_utf8_lossy(&beginning[..end]).into_owned() + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let short = "a".repeat(MOST_OF_TEXT);
        assert_eq!(cut(short.as_bytes()), short);
        let cases = [
            ("a".repeat(MOST_OF_TEXT + 1), 256),
            ("ä".repeat(MOST_OF_TEXT), 256),
            ("a".to_owned() + &"ä".repeat(MOST_OF_TEXT), 255),
            ("a".to_owned() + &"😀".repeat(MOST_OF_TEXT), 253),
        ];
        for (text, bytes) in cases {
            assert_eq!(cut(text.as_bytes()), format!("{}…", &text[..bytes]));
        }
        let listed = cut(&[0x80; 2 * MOST_OF_TEXT]);
        assert!(listed.len() <= 3 * (MOST_OF_TEXT + 1), "{listed}");
    }
}
