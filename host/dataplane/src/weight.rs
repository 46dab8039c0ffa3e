//! Which requests are kept back first under overload (RFC 7339 §5.10.1).

use portcullis_rate::Weight;
use portcullis_sip::{Message, StartLine, to_has_tag};

/// How important a request is. `None`: it is never kept back, because the other side waits for it (ACK, CANCEL).
pub(crate) fn weight_of(request: Message<'_>) -> Option<Weight> {
    let StartLine::Request { method, uri, .. } = request.start_line() else {
        return None;
    };
    match method {
        b"ACK" | b"CANCEL" => None,
        _ if to_has_tag(request) || is_emergency(request, uri) => Some(Weight::Urgent),
        _ => Some(Weight::New),
    }
}

/// Whether somebody calls for help: the service URN (RFC 5031), `Priority: emergency` (RFC 3261 §20.26), or a priority for emergencies (RFC 4412,
/// RFC 7135).
fn is_emergency(request: Message<'_>, uri: &[u8]) -> bool {
    const SERVICE: &[u8] = b"urn:service:sos";
    let begins = |text: &[u8]| {
        let start = text.get(..SERVICE.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(SERVICE))
    };
    let is = |name: &str, wanted: fn(&[u8]) -> bool| {
        let mut fields = request.by_name(name);
        fields.any(|field| wanted(field.value))
    };
    begins(uri)
        || is("Priority", |value| value.eq_ignore_ascii_case(b"emergency"))
        || is("Resource-Priority", |value| {
            let start = value.get(..5);
            start.is_some_and(|start| start.eq_ignore_ascii_case(b"esnet"))
        })
}
