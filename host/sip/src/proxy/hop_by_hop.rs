//! Requests that a stateful proxy makes itself, for one hop: CANCEL and the ACK to a failure.

use crate::edit::write_decimal;
use crate::scan::{Field, HeaderName, Message, StartLine};
use crate::top_via::TopVia;

/// Writes the CANCEL for an INVITE as it was sent (RFC 3261 §9.1). `reason` is the value of a Reason header field (RFC 3326).
pub fn write_cancel(invite: Message<'_>, reason: Option<&[u8]>, out: &mut Vec<u8>) {
    let to = invite.header(HeaderName::To);
    write_request(b"CANCEL", invite, to, reason, out);
}

/// Writes the ACK to a failure of an INVITE as it was sent (RFC 3261 §17.1.1.3).
pub fn write_ack(invite: Message<'_>, response: Message<'_>, out: &mut Vec<u8>) {
    let to = response.header(HeaderName::To);
    write_request(b"ACK", invite, to, None, out);
}

/// Writes the parts of a request that [`write_cancel`], [`write_ack`] and replies need, in the form of a request: the header fields that name
/// its transaction and its path, without a body.
pub fn shorten(request: Message<'_>, out: &mut Vec<u8>) {
    out.clear();
    let bytes = request.bytes();
    let first = request.fields().next();
    let start = first.map_or_else(|| request.header_end(), |field| field.line.start);
    out.extend_from_slice(bytes.get(..start).unwrap_or_default());
    let needed = request.fields().filter(|field| {
        use HeaderName::{CSeq, CallId, From, MaxForwards, Route, Timestamp, To, Via};
        matches!(
            field.name,
            Via | From | To | CallId | CSeq | Route | MaxForwards | Timestamp
        )
    });
    for field in needed {
        out.extend_from_slice(bytes.get(field.line).unwrap_or_default());
    }
    out.extend_from_slice(request.line_end().as_bytes());
}

/// A request with the request URI, top Via, Call-ID, From, CSeq number and Route of another one.
fn write_request(
    method: &[u8],
    invite: Message<'_>,
    to: Option<Field<'_>>,
    reason: Option<&[u8]>,
    out: &mut Vec<u8>,
) {
    out.clear();
    let StartLine::Request { uri, .. } = invite.start_line() else {
        return;
    };
    let mut put = |parts: &[&[u8]]| {
        parts.iter().for_each(|part| out.extend_from_slice(part));
        out.extend_from_slice(b"\r\n");
    };
    put(&[method, b" ", uri, b" SIP/2.0"]);
    if let Some(top) = TopVia::of(invite) {
        let via = top.field.value.get(top.via.range);
        put(&[b"Via: ", via.unwrap_or_default()]);
    }
    put(&[b"Max-Forwards: 70"]);
    for route in invite.headers(HeaderName::Route) {
        put(&[b"Route: ", route.value]);
    }
    let from = invite.header(HeaderName::From);
    let call_id = invite.header(HeaderName::CallId);
    for (label, field) in [
        (&b"From: "[..], from),
        (b"To: ", to),
        (b"Call-ID: ", call_id),
    ] {
        if let Some(field) = field {
            put(&[label, field.value]);
        }
    }
    out.extend_from_slice(b"CSeq: ");
    write_decimal(invite.cseq().map_or(0, |cseq| cseq.number), out);
    for part in [b" ", method, b"\r\n"] {
        out.extend_from_slice(part);
    }
    if let Some(reason) = reason {
        for part in [b"Reason: ", reason, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}
