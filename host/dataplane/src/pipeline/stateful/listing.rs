//! What operators see of transactions.

use std::borrow::Cow;

use portcullis_sip::{HeaderName, Index, StartLine};
use portcullis_transaction::{Listed, Time, Transactions};

use super::stored::stored;
use crate::active::{ActiveTransaction, CallName, Page};

/// Most slots that one page looks at: a worker relays messages between two pages.
const SLOTS_OF_PAGE: u32 = 128;

/// Most bytes of a listed method, From and To: a list has up to 10,000 of each, and a sender may write as much as a message can hold.
const MOST_OF_TEXT: usize = 256;

/// The transactions of a worker at a moment.
pub(super) struct Listing<'t> {
    pub(super) transactions: &'t Transactions<u8>,
    pub(super) worker: usize,
    pub(super) now: Time,
}

impl Listing<'_> {
    /// The active transactions in the slots from here on, of a call only if one is named: a page of at most this many.
    pub(super) fn page(
        &self,
        from: u32,
        only: Option<&CallName>,
        most: usize,
        index: &mut Index,
    ) -> Page {
        let end = self.transactions.slots();
        let mut transactions = Vec::new();
        let mut slot = from;
        while slot < end.min(from.saturating_add(SLOTS_OF_PAGE)) && transactions.len() < most {
            let listed = self.transactions.listed(slot);
            transactions.extend(listed.and_then(|listed| self.active(listed, only, index)));
            slot += 1;
        }
        Page {
            transactions,
            next: (slot < end).then_some(slot),
        }
    }

    /// What operators see of a transaction; `None` if it belongs to another call than the named one.
    fn active(
        &self,
        listed: Listed<'_>,
        only: Option<&CallName>,
        index: &mut Index,
    ) -> Option<ActiveTransaction> {
        let message = stored(listed.request, index);
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
            worker: self.worker,
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
            seconds_left: listed.limit.since(self.now).as_secs(),
        })
    }
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
