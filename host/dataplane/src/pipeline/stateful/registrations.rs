//! Clients over UDP that register: their flows are to be kept open.

use portcullis_sip::{
    Arrival, Framing, Index, Limits, Message, StartLine, registered_for, registers, scan,
};
use portcullis_transaction::{Id, Outbox, What};

use crate::flow_pings::{ClientFlow, FlowEvent, FlowPings};
use crate::pipeline::judge::Judgement;
use crate::pipeline::relaying::Relaying;

/// Registrations that a registrar has accepted, and whose responses have not been sent yet.
#[derive(Default)]
pub(super) struct Registrations {
    accepted: Vec<(Id, ClientFlow)>,
    index: Index,
}

/// Most registrations that wait for their responses, which are sent in the same turn.
const MOST: usize = 1_024;

/// The flow that a request registers along, if pings are to keep it open: that of a client over UDP.
pub(super) fn flow_of(
    relaying: &Relaying<'_>,
    judgement: &Judgement,
    message: Message<'_>,
    arrival: &Arrival,
) -> Option<ClientFlow> {
    if !relaying.pings_flows() || arrival.transport.is_reliable() {
        return None;
    }
    let is_register = matches!(
        message.start_line(),
        StartLine::Request {
            method: b"REGISTER",
            ..
        }
    );
    let flow = ClientFlow {
        local: arrival.local,
        client: arrival.source,
    };
    (is_register && registers(message) && relaying.is_of_client(judgement, arrival)).then_some(flow)
}

impl Registrations {
    /// A registrar has accepted the registration in this transaction, along this flow.
    pub(super) fn accepted(&mut self, id: Id, flow: ClientFlow) {
        // The responses to the others were kept back, or are those of another target.
        if self.accepted.len() == MOST {
            self.accepted.clear();
        }
        self.accepted.push((id, flow));
    }

    /// Notes for how long the registrations last whose responses are sent now.
    pub(super) fn note(&mut self, sends: &Outbox, pings: &FlowPings) {
        if self.accepted.is_empty() {
            return;
        }
        let Self { accepted, index } = self;
        let is_success = |bytes: &[u8]| bytes.starts_with(b"SIP/2.0 2");
        let responses = sends.iter().filter(|sent| sent.what == What::Response);
        for sent in responses.filter(|sent| is_success(sent.bytes)) {
            let is_it = |(id, _): &(Id, ClientFlow)| Some(*id) == sent.id;
            let Some(at) = accepted.iter().position(is_it) else {
                continue;
            };
            let (_, flow) = accepted.swap_remove(at);
            if scan(sent.bytes, Framing::Datagram, &Limits::NONE, index).is_err() {
                continue;
            }
            let seconds = registered_for(Message::new(sent.bytes, index));
            if seconds > 0 {
                pings.note(FlowEvent::Registered { flow, seconds });
            }
        }
    }
}
