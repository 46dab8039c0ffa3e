//! What a host that is about to end refuses (RFC 3261 §21.5.4).

use portcullis_sip::{Arrival, Destination, Message, Received, StartLine, to_has_tag};

use super::{Pipeline, code_of};
use crate::drain::Stage;

/// The sender should try another host, or this one after its restart.
const HEADERS: &[(&str, &str)] = &[("Retry-After", "1")];

const REASON: &str = "Server Ending";

impl Pipeline {
    /// Whether `received` is the 200 to an OPTIONS to a host that is about to end: it is alive, but should get no more requests.
    pub(super) fn is_ping_of_draining(
        &self,
        message: Message<'_>,
        received: &Received,
        out: &[u8],
    ) -> bool {
        self.shared.drain.stage() >= Stage::Announced
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
    pub(super) fn refuses_as_draining(&self, message: Message<'_>) -> bool {
        self.shared.drain.stage() >= Stage::Refusing && !to_has_tag(message)
    }

    /// Answers such a request.
    #[cold]
    pub(super) fn refuse_as_draining(
        &self,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let proxy = &self.shared.proxy;
        proxy.reject(message, arrival, 503, REASON, HEADERS, out)
    }
}
