//! Recognises the pings that this host has sent.

use std::fmt::Display;

use portcullis_sip::{Arrival, Destination, Framing, Index, Limits, Message, StartLine, scan};

use crate::flow_pings::{ClientFlow, FlowEvent};
use crate::pings::PingFate;
use crate::shared::Shared;

/// Whether a response answers a ping to a destination of the dispatcher. Notes it for the control side.
pub(super) fn is_answered_by(message: Message<'_>, shared: &Shared) -> bool {
    let StartLine::Response { code, .. } = message.start_line() else {
        return false;
    };
    let number = shared.proxy.ping_of(message);
    number
        .inspect(|number| shared.pings.note(*number, PingFate::Answered(code)))
        .is_some()
}

/// Whether a response answers a ping to a client, which thereby proves its address. Notes it for the control side.
pub(super) fn is_answered_by_client(
    message: Message<'_>,
    arrival: &Arrival,
    shared: &Shared,
) -> bool {
    let (Some(pings), StartLine::Response { .. }) = (&shared.flow_pings, message.start_line())
    else {
        return false;
    };
    let client = arrival.source;
    let Some(number) = shared.proxy.flow_ping_of(message, client) else {
        return false;
    };
    let flow = ClientFlow {
        local: arrival.local,
        client,
    };
    pings.note(FlowEvent::Answered { flow, number });
    true
}

/// Notes for the control side that a ping along the flow of a client is not sent.
pub(super) fn keep_back(bytes: &[u8], to: &Destination, shared: &Shared) {
    let mut index = Index::default();
    let _whole = scan(bytes, Framing::Datagram, &Limits::NONE, &mut index);
    let pinged = shared.proxy.flow_pinged(Message::new(bytes, &index));
    if let (Some(pings), Some(local), Some((_, number))) = (&shared.flow_pings, to.from, pinged) {
        let client = to.addr;
        let flow = ClientFlow { local, client };
        pings.note(FlowEvent::KeptBack { flow, number });
    }
}

/// Whether a request that was not delivered is a ping. Notes it for the control side, with the reason. An ICMP error quotes only the beginning of
/// the request.
pub(super) fn fails_with(bytes: &[u8], why: Option<&dyn Display>, shared: &Shared) -> bool {
    let mut index = Index::default();
    let _cut = scan(bytes, Framing::Datagram, &Limits::NONE, &mut index);
    let message = Message::new(bytes, &index);
    let StartLine::Request { .. } = message.start_line() else {
        return false;
    };
    if let Some(pings) = &shared.flow_pings
        && let Some((client, number)) = shared.proxy.flow_pinged(message)
    {
        pings.note(FlowEvent::Undelivered { client, number });
        return true;
    }
    let number = shared.proxy.ping_of(message);
    number
        .inspect(|number| shared.pings.note(*number, PingFate::undelivered(why)))
        .is_some()
}
