//! Stateless replies (RFC 3261 §8.2.6, §8.2.7), as written by Kamailio's `sl_reply`.
//!
//! A reply is the status line; every Via, From, To, Call-ID and CSeq of the request with their values as received; further
//! headers; Server; an empty body. The top Via gets `received` and `rport`, To gets a tag where it has none. The same request
//! always gets the same reply, so a retransmission needs no memory.

use std::ops::Range;

use crate::arrival::Arrival;
use crate::edit::{Edits, write_decimal, write_hex};
use crate::name_addr::NameAddr;
use crate::overload::Offer;
use crate::scan::{Field, HeaderName, Message};
use crate::token::is_token;
use crate::top_via::{MOST_OFFERS, TopVia};

/// A reply under construction.
pub(crate) struct Reply<'o> {
    out: &'o mut Vec<u8>,
    has_server: bool,
}

impl<'o> Reply<'o> {
    /// Writes the status line and the fields copied from the request. `tag`, if there is one, goes to a To without one. Without a parsed `top` Via, all
    /// Vias are copied as received.
    pub(crate) fn to(
        message: Message<'_>,
        top: Option<&TopVia<'_>>,
        arrival: &Arrival,
        code: u16,
        reason: &str,
        tag: Option<u64>,
        out: &'o mut Vec<u8>,
    ) -> Self {
        out.clear();
        // One allocation: a reply is rarely larger.
        out.reserve(message.bytes().len() + 256);
        out.extend_from_slice(b"SIP/2.0 ");
        write_decimal(code.into(), out);
        let mut reply = Self {
            out,
            has_server: false,
        };
        reply.line(b" ", reason.as_bytes());
        reply.vias(message, top, arrival);
        if let Some(from) = message.header(HeaderName::From) {
            reply.line(b"From: ", from.value);
        }
        if let Some(to) = message.header(HeaderName::To) {
            reply.recipient(&to, tag);
        }
        if let Some(call_id) = message.header(HeaderName::CallId) {
            reply.line(b"Call-ID: ", call_id.value);
        }
        if let Some(cseq) = message.header(HeaderName::CSeq) {
            reply.line(b"CSeq: ", cseq.value);
        }
        reply
    }

    /// Adds a header field. A second field with a name that the reply already has, and a field whose name is not a token, are left out;
    /// line ends in the value become spaces.
    pub(crate) fn header(&mut self, name: &str, value: &str) {
        use HeaderName::{CSeq, CallId, ContentLength, ContentType, From, Server, To, Via};
        let known = HeaderName::of(name.as_bytes());
        let is_ours = matches!(
            known,
            Via | From | To | CallId | CSeq | ContentLength | ContentType
        );
        if is_ours || !is_token(name.as_bytes()) || (known == Server && self.has_server) {
            return;
        }
        self.has_server |= known == Server;
        self.out.extend_from_slice(name.as_bytes());
        self.line(b": ", value.as_bytes());
    }

    /// Adds an Unsupported header with every value of the request's headers of that name (RFC 3261 §16.3(5), §8.2.2.3).
    pub(crate) fn unsupported(&mut self, message: Message<'_>, name: HeaderName) {
        for field in message.headers(name) {
            self.line(b"Unsupported: ", field.value);
        }
    }

    /// Copies Timestamp, as a 100 must (RFC 3261 §8.2.6.1).
    pub(crate) fn timestamp(&mut self, message: Message<'_>) {
        if let Some(timestamp) = message.header(HeaderName::Timestamp) {
            self.line(b"Timestamp: ", timestamp.value);
        }
    }

    /// Ends the reply. `server` is a whole header line, or empty.
    pub(crate) fn end(self, server: &[u8]) {
        if !self.has_server {
            self.out.extend_from_slice(server);
        }
        self.out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    }

    fn vias(&mut self, message: Message<'_>, top: Option<&TopVia<'_>>, arrival: &Arrival) {
        if let Some(top) = top {
            let overload = top
                .asked
                .and_then(|demand| demand.of(Offer::of_via(&top.via)));
            let write = |out: &mut Vec<u8>| {
                if let Some(overload) = overload {
                    overload.write(out);
                }
            };
            let mut edits = Edits::<{ 2 + MOST_OFFERS }>::new();
            // Edits at different positions of the grammar always fit.
            let _fits = top.note_source(arrival.source, 0, &mut edits);
            if overload.is_some() {
                let _fits = top.note_overload(&write, &mut edits);
            }
            self.out.extend_from_slice(b"Via: ");
            let start = self.out.len();
            edits.apply(top.field.value, self.out);
            self.end_line(start);
        }
        let done = usize::from(top.is_some());
        // Consecutive lines in the form that we write are copied at once: a request may have hundreds.
        let mut run = 0..0;
        for field in message.headers(HeaderName::Via).skip(done) {
            if !is_plain_via(message, &field) {
                self.copy(message, &mut run);
                self.line(b"Via: ", field.value);
            } else if field.line.start == run.end {
                run.end = field.line.end;
            } else {
                self.copy(message, &mut run);
                run = field.line;
            }
        }
        self.copy(message, &mut run);
    }

    /// Copies bytes of the request and clears them.
    fn copy(&mut self, message: Message<'_>, run: &mut Range<usize>) {
        let bytes = message.bytes().get(std::mem::take(run));
        self.out.extend_from_slice(bytes.unwrap_or_default());
    }

    fn recipient(&mut self, to: &Field<'_>, tag: Option<u64>) {
        self.out.extend_from_slice(b"To: ");
        let start = self.out.len();
        self.out.extend_from_slice(to.value);
        if let Some(tag) = tag
            && NameAddr::parse(to.value).is_ok_and(|to| to.params.named("tag").is_none())
        {
            self.out.extend_from_slice(b";tag=");
            write_hex(tag, self.out);
        }
        self.end_line(start);
    }

    fn line(&mut self, label: &[u8], value: &[u8]) {
        self.out.extend_from_slice(label);
        let start = self.out.len();
        self.out.extend_from_slice(value);
        self.end_line(start);
    }

    /// Ends the line whose value begins at `start`. Line ends in the value become spaces: for folds that means the same (RFC 3261
    /// §7.3.1), and it keeps senders from injecting header lines into replies.
    fn end_line(&mut self, start: usize) {
        let value = self.out.get_mut(start..).unwrap_or_default();
        if may_have_line_end(value) {
            for byte in value
                .iter_mut()
                .filter(|byte| matches!(byte, b'\r' | b'\n'))
            {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Whether the line of a Via header has the form that [`Reply::line`] writes.
fn is_plain_via(message: Message<'_>, field: &Field<'_>) -> bool {
    let line = message.bytes().get(field.line.clone()).unwrap_or_default();
    line.len() == b"Via: ".len() + field.value.len() + b"\r\n".len()
        && line.first_chunk() == Some(b"Via: ")
        && line.last_chunk() == Some(b"\r\n")
        && !may_have_line_end(field.value)
}

/// Whether one of the bytes is CR or LF; true as well for some others below space, which are as rare.
fn may_have_line_end(bytes: &[u8]) -> bool {
    const EVERY: u64 = 0x0101_0101_0101_0101;
    const TOP: u64 = 0x80 * EVERY;
    // Eight bytes at a time: the top bit stays where the byte is below CR + 1. The last eight may overlap others.
    let below = |word: [u8; 8]| {
        let word = u64::from_le_bytes(word);
        word.wrapping_sub((u64::from(b'\r') + 1) * EVERY) & !word & TOP
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let found = words.iter().fold(0, |found, &word| found | below(word));
    let last = match bytes.last_chunk::<8>() {
        Some(&last) => below(last),
        None => u64::from(rest.iter().any(|&byte| byte <= b'\r')),
    };
    found | last != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_line_end_is_overlooked(
            bytes in prop::collection::vec(prop_oneof![20 => any::<u8>(), 1 => 0x08_u8..0x10], 0..40),
        ) {
            let has = bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
            prop_assert!(!has || may_have_line_end(&bytes));
            let is_plain = bytes.iter().all(|&byte| byte >= b' ');
            prop_assert!(!is_plain || !may_have_line_end(&bytes));
        }
    }
}
