//! What a host that is about to end refuses (RFC 3261 §21.5.4).

use portcullis_sip::{Arrival, Destination, Message, Proxy, Received, StartLine, to_has_tag};

use super::fate::code_of;
use crate::drain::{Drain, Stage};

/// The sender should try another host, or this one after its restart.
const HEADERS: &[(&str, &str)] = &[("Retry-After", "1")];

const REASON: &str = "Server Ending";

/// Whether `received` is the 200 to an OPTIONS to a host that is about to end: it is alive, but should get no more requests.
pub(super) fn refuses_ping(
    drain: &Drain,
    message: Message<'_>,
    received: &Received,
    out: &[u8],
) -> bool {
    drain.stage() >= Stage::Announced
        && matches!(received, Received::Reply(_))
        && code_of(out) == 200
        && matches!(
            message.start_line(),
            StartLine::Request {
                method: b"OPTIONS",
                ..
            }
        )
}

/// Whether the request would begin a transaction that outlives the host. Requests within dialogs go on.
pub(super) fn refuses(drain: &Drain, message: Message<'_>) -> bool {
    drain.stage() >= Stage::Refusing && !to_has_tag(message)
}

/// Answers such a request.
#[cold]
pub(super) fn refuse(
    proxy: &Proxy,
    message: Message<'_>,
    arrival: &Arrival,
    out: &mut Vec<u8>,
) -> Option<Destination> {
    proxy.reject(message, arrival, 503, REASON, HEADERS, out)
}
