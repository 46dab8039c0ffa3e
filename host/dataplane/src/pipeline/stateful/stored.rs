//! Requests that a transaction has stored.

use portcullis_sip::{Framing, Index, Limits, Message, scan};

/// The stored request of a transaction.
pub(super) fn stored<'m>(request: &'m [u8], index: &'m mut Index) -> Message<'m> {
    let scanned = scan(request, Framing::Datagram, &Limits::NONE, index);
    debug_assert!(scanned.is_ok(), "a stored request was scanned before");
    Message::new(request, index)
}
