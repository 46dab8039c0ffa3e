//! Stateless replies (RFC 3261 §8.2.6, §8.2.7) as Kamailio's `sl_reply` makes them.
//!
//! A reply is the status line; every Via, From, To, Call-ID and CSeq of the request with their values as received; further
//! headers; Server; an empty body. The top Via gets `received` and `rport`, To gets a tag where it has none. The same request
//! always gets the same reply, so a retransmission needs no memory.

use memchr::memchr2;

use crate::arrival::Arrival;
use crate::edit::{Edits, Text, write_decimal, write_hex};
use crate::name_addr::NameAddr;
use crate::proxy::top_via::TopVia;
use crate::scan::{Field, HeaderName, Message};
use crate::token::is_token;

/// A reply that is being written.
pub(crate) struct Reply<'o> {
    out: &'o mut Vec<u8>,
    has_server: bool,
}

impl<'o> Reply<'o> {
    /// Writes the status line and what is copied from the request. `tag` is for a To that has none.
    pub(crate) fn to(
        message: Message<'_>,
        top: &TopVia<'_>,
        arrival: &Arrival,
        code: u16,
        reason: &str,
        tag: u64,
        out: &'o mut Vec<u8>,
    ) -> Self {
        out.clear();
        out.extend_from_slice(b"SIP/2.0 ");
        write_decimal(code.into(), out);
        out.push(b' ');
        Text::Bytes(reason.as_bytes()).write_in_line(out);
        out.extend_from_slice(b"\r\n");

        let mut reply = Self {
            out,
            has_server: false,
        };
        reply.vias(message, top, arrival);
        if let Some(from) = message.header(HeaderName::From) {
            reply.line(b"From: ", Text::Bytes(from.value));
        }
        if let Some(to) = message.header(HeaderName::To) {
            reply.recipient(&to, tag);
        }
        if let Some(call_id) = message.header(HeaderName::CallId) {
            reply.line(b"Call-ID: ", Text::Bytes(call_id.value));
        }
        if let Some(cseq) = message.header(HeaderName::CSeq) {
            reply.line(b"CSeq: ", Text::Bytes(cseq.value));
        }
        reply
    }

    /// Adds a header. One that would make two of a header that the reply has already, or whose name is no token, is left out;
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
        self.line(b": ", Text::Bytes(value.as_bytes()));
    }

    /// Adds an Unsupported header with every value of the request's headers of that name (RFC 3261 §16.3(5), §8.2.2.3).
    pub(crate) fn unsupported(&mut self, message: Message<'_>, name: HeaderName) {
        for field in message.headers(name) {
            self.line(b"Unsupported: ", Text::Bytes(field.value));
        }
    }

    /// Ends the reply. `server` is a whole header line, or empty.
    pub(crate) fn end(self, server: &[u8]) {
        if !self.has_server {
            self.out.extend_from_slice(server);
        }
        self.out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    }

    fn vias(&mut self, message: Message<'_>, top: &TopVia<'_>, arrival: &Arrival) {
        let mut edits = Edits::<2>::new();
        // Two edits at two places of the grammar: they fit.
        let _fits = top.note_source(arrival.source, 0, &mut edits);
        let first = |out: &mut Vec<u8>| edits.apply(top.field.value, out);
        self.line(b"Via: ", Text::Written(&first));
        for field in message.headers(HeaderName::Via).skip(1) {
            self.line(b"Via: ", Text::Bytes(field.value));
        }
    }

    fn recipient(&mut self, to: &Field<'_>, tag: u64) {
        let lacks_tag = NameAddr::parse(to.value).is_ok_and(|to| to.params.named("tag").is_none());
        if !lacks_tag {
            return self.line(b"To: ", Text::Bytes(to.value));
        }
        let tagged = |out: &mut Vec<u8>| {
            out.extend_from_slice(to.value);
            out.extend_from_slice(b";tag=");
            write_hex(tag, out);
        };
        self.line(b"To: ", Text::Written(&tagged));
    }

    fn line(&mut self, label: &[u8], value: Text<'_>) {
        self.out.extend_from_slice(label);
        value.write_in_line(self.out);
        self.out.extend_from_slice(b"\r\n");
    }
}

impl Text<'_> {
    /// Writes a value that must stay in its line: what is left of folds and other line ends becomes space, which means the
    /// same (RFC 3261 §7.3.1) and lets nobody write header lines of his own into our replies.
    fn write_in_line(self, out: &mut Vec<u8>) {
        let start = out.len();
        self.write(out);
        let written = &mut out[start..];
        if memchr2(b'\r', b'\n', written).is_some() {
            for byte in written
                .iter_mut()
                .filter(|byte| matches!(byte, b'\r' | b'\n'))
            {
                *byte = b' ';
            }
        }
    }
}
