//! Requests that a transaction has stored, and those that this host has written.

use portcullis_sip::{Framing, Index, Limits, Message, scan};

/// Without limits: the header fields of this host may have taken a request beyond the limits of received messages.
pub(super) const STORED: Limits = Limits {
    message_bytes: usize::MAX,
    header_lines: usize::MAX,
    header_bytes: usize::MAX,
    start_line_bytes: usize::MAX,
};

/// The stored request of a transaction.
pub(super) fn stored<'m>(request: &'m [u8], index: &'m mut Index) -> Message<'m> {
    let scanned = scan(request, Framing::Datagram, &STORED, index);
    debug_assert!(scanned.is_ok(), "a stored request was scanned before");
    Message::new(request, index)
}
