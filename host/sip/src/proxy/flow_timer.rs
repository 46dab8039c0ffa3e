//! Flow-Timer in the response to a registration (RFC 5626 §5.4): within how many seconds the client sends a keep-alive.

use crate::arrival::Transport;
use crate::edit::write_decimal;
use crate::list::values;
use crate::scan::{HeaderName, Message, StartLine};

const NAME: &str = "Flow-Timer";

/// Writes the header line for a response to a client over this transport, if the client is to get one. The message still has our Via.
pub(super) fn write_flow_timer(
    message: Message<'_>,
    transport: Transport,
    seconds: Option<u32>,
    out: &mut Vec<u8>,
) {
    let Some(seconds) = seconds.filter(|_| is_due(message, transport)) else {
        return;
    };
    out.extend_from_slice(NAME.as_bytes());
    out.extend_from_slice(b": ");
    write_decimal(seconds, out);
    out.extend_from_slice(message.line_end().as_bytes());
}

/// Whether the registrar has accepted a registration with outbound, this host is the last proxy before the client, and nobody has set the timer. Over
/// UDP, the client's default keeps the NAT open (24 to 29 s, §4.4.2), and over WebSocket there are pings.
pub(super) fn is_due(message: Message<'_>, transport: Transport) -> bool {
    let is_success = matches!(
        message.start_line(),
        StartLine::Response { code: 200..300, .. }
    );
    let is_register = || {
        let cseq = message.cseq();
        cseq.is_some_and(|cseq| cseq.method == b"REGISTER")
    };
    let all = |name| {
        let fields = message.headers(name);
        fields.flat_map(|field| values(field.value))
    };
    is_success
        && transport.is_reliable()
        && !transport.is_websocket()
        && is_register()
        && all(HeaderName::Require).any(|value| value.bytes.eq_ignore_ascii_case(b"outbound"))
        && all(HeaderName::Via).take(3).count() == 2
        && message.by_name(NAME).next().is_none()
}
