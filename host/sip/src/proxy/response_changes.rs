//! Responses as a stateful proxy passes them on (RFC 3261 §16.7).

use super::flow_timer::write_flow_timer;
use super::relay::write_content_length;
use crate::arrival::Transport;
use crate::edit::write_decimal;
use crate::overload::{Feedback, Returning};
use crate::reason::standard_reason;
use crate::scan::{HeaderName, Message};
use crate::top_via::TopVia;

/// Changes to a response, besides the removal of our Via.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseChanges<'a> {
    /// The code, with its standard reason, in place of the received one.
    pub code: Option<u16>,
    /// Header fields with this name are left out.
    pub without: Option<HeaderName>,
    /// Whole header lines to add.
    pub added: &'a [u8],
    /// Flow-Timer for the response to a registration, where it is due: see [`Clients::flow_timer`](crate::Clients::flow_timer).
    pub flow_timer: Option<u32>,
    /// What becomes of overload control in the remaining Vias: see [`Proxy::feedback`](crate::Proxy::feedback).
    pub feedback: Feedback,
}

/// Writes a received response without its top Via, with these changes, for a hop with this transport. Returns false, and writes nothing, if
/// the top Via cannot be parsed or is the only one.
pub fn write_response(
    message: Message<'_>,
    changes: &ResponseChanges<'_>,
    transport: Transport,
    out: &mut Vec<u8>,
) -> bool {
    out.clear();
    let Some(top) = TopVia::of(message) else {
        return false;
    };
    if top.via.next.is_none() && message.headers(HeaderName::Via).nth(1).is_none() {
        return false;
    }
    let bytes = message.bytes();
    let mut done = 0;
    if let Some(code) = changes.code {
        out.extend_from_slice(b"SIP/2.0 ");
        write_decimal(code.into(), out);
        out.push(b' ');
        out.extend_from_slice(standard_reason(code).as_bytes());
        out.extend_from_slice(message.line_end().as_bytes());
        done = message.fields().next().map_or(0, |field| field.line.start);
    }
    let ours = top.field.line.start;
    let mut returning = Returning::new(changes.feedback, &top.via);
    let mut rest = top.rest_of_fields();
    for field in message.fields() {
        let cut = if field.line.start == ours {
            top.place_of_first()
        } else if Some(field.name) == changes.without {
            field.line.clone()
        } else {
            field.line.start..field.line.start
        };
        if !cut.is_empty() {
            out.extend_from_slice(bytes.get(done..cut.start).unwrap_or_default());
            done = cut.end;
        }
        if field.name == HeaderName::Via {
            let at = rest.next().unwrap_or_default();
            returning.write(bytes, &field, at, &mut done, out);
        }
    }
    let end = message.header_end();
    out.extend_from_slice(bytes.get(done..end).unwrap_or_default());
    out.extend_from_slice(changes.added);
    write_flow_timer(message, transport, changes.flow_timer, out);
    if transport.is_reliable() && message.header(HeaderName::ContentLength).is_none() {
        write_content_length(message, out);
    }
    out.extend_from_slice(bytes.get(end..).unwrap_or_default());
    true
}
