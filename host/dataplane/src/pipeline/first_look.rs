//! The first look at a message: what is answered, absorbed, dropped or handled by a transaction before policies are asked.

use std::fmt::Display;
use std::time::Instant;

use portcullis_metrics::{Label, Lost, Method};
use portcullis_sip::{
    Arrival, Destination, DropReason, Message, Offer, Overload, OverloadAlgorithm, Received,
    ScanError, StartLine,
};

use super::fate::Fate;
use super::responder::{self, NO_HEADERS};
use super::stateful::{Belongs, Stateful};
use super::{Look, Pipeline, draining, pings, strangers, wire_of};
use crate::shared::Shared;

/// Reason phrase of the answer to a request that an overloaded host does not serve.
const OVERLOADED: &str = "Overloaded";

impl Pipeline {
    /// The first look, with its counters.
    pub(super) fn look(
        &mut self,
        message: Message<'_>,
        scanned: Result<(), ScanError>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Look {
        if scanned.is_ok()
            && let Some(owner) = self.owner(message, arrival)
        {
            return Look::HandOver(owner);
        }
        self.reporter.received(message.bytes(), arrival);
        let mut is_again = false;
        if scanned.is_ok() {
            let wire = self.counters().wire(wire_of(arrival.transport));
            match message.start_line() {
                StartLine::Request { method, .. } => {
                    let method = Method::of(method);
                    wire.requests.inc(method);
                    self.note_request(method, message, arrival);
                }
                StartLine::Response { .. } => {
                    wire.responses.inc();
                    if self.shared.config.relay.overload_control.is_some() {
                        self.note_load(message, arrival);
                    }
                    match self.response(message, arrival) {
                        Ok(again) => is_again = again,
                        Err(look) => return look,
                    }
                }
            }
        }
        let mut name = None;
        let mut received = self.shared.proxy.receive(message, scanned, arrival, out);
        if draining::refuses_ping(&self.shared.drain, message, &received, out)
            && let Some(reply) = draining::refuse(&self.shared.proxy, message, arrival, out)
        {
            received = Received::Reply(reply);
        }
        if matches!(received, Received::Judge | Received::Absorbed) {
            match self.belongs(message, arrival) {
                None => {
                    let refused = self.refuse_for_load(message, arrival, out);
                    received = refused.map_or(received, Received::Reply);
                }
                Some(Belongs::Stateless | Belongs::Again) => {}
                Some(Belongs::New(new)) => {
                    name = Some(new);
                    let refused = self.refuse_new(message, arrival, out);
                    received = refused.map_or(received, Received::Reply);
                }
                Some(Belongs::Handled) => {
                    if matches!(received, Received::Absorbed) {
                        self.responder.acknowledged(message, arrival);
                    }
                    return self.handled(message, arrival);
                }
                Some(Belongs::Dropped(cause)) => return self.dropped(cause, message, arrival),
            }
        }
        // To everything but pings, their branch is one that somebody else wrote.
        if received == Received::Drop(DropReason::ForgedResponse) {
            if pings::is_answered_by(message, &self.shared) {
                return self.handled(message, arrival);
            }
            if pings::is_answered_by_client(message, arrival, &self.shared) {
                self.responder.proved(arrival.source.ip());
                return self.handled(message, arrival);
            }
        }
        let strangers = self.responder.strangers();
        if matches!(received, Received::Judge | Received::Reply(_)) {
            let reply = matches!(received, Received::Reply(_)).then_some(&out[..]);
            strangers.looked(scanned, message, reply, arrival);
            if strangers.keeps_back(message, arrival) {
                return self.dropped(strangers::held(), message, arrival);
            }
        }
        let counters = self.counters();
        match &received {
            Received::Judge => {}
            Received::Reply(_) if !self.responder.admits(out, message, arrival) => {
                let cause = Lost::AnswerLimit.label();
                return self.dropped(cause, message, arrival);
            }
            Received::Reply(_) => {}
            Received::Forward(to)
                if is_again && !self.responder.may_repeat(to.transport, to.addr) =>
            {
                let call_id = responder::call_id_of(message);
                self.responder
                    .keep_back(Lost::AnswerLimit, call_id, to.addr);
                return self.dropped(Lost::AnswerLimit.label(), message, arrival);
            }
            Received::Forward(to) => {
                counters.relayed_responses.inc();
                strangers.returned(message, to);
            }
            Received::Absorbed => {
                counters.absorbed_acks.inc();
                self.responder.acknowledged(message, arrival);
            }
            Received::Drop(reason) => {
                counters.dropped.inc(*reason);
                strangers.looked(scanned, message, None, arrival);
            }
        }
        if self.reporter.is_watched() {
            let error = scanned.err();
            let detail = error.as_ref().map(|error| error as &dyn Display);
            if let Some(fate) = Fate::of_look(&received, out, detail) {
                self.reporter.report(message, arrival, None, fate);
            }
        }
        match received {
            Received::Judge => Look::Judge(name),
            Received::Reply(destination) | Received::Forward(destination) => {
                Look::Done(Some(destination))
            }
            Received::Absorbed | Received::Drop(_) => Look::Done(None),
        }
    }

    /// Answers a new request that would loop (RFC 5393 §4.2), or that a host that is about to end does not accept any more.
    fn refuse_new(
        &self,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let Shared { proxy, drain, .. } = &*self.shared;
        if proxy.is_loop(message, arrival) {
            return proxy.reject(message, arrival, 482, "", NO_HEADERS, out);
        }
        if draining::refuses(drain, message) {
            return draining::refuse(proxy, message, arrival, out);
        }
        self.refuse_for_load(message, arrival, out)
    }

    /// Answers a new request that an overloaded host does not serve, because its sender cannot be asked for less: without Retry-After (RFC 7339 §5.10.2).
    fn refuse_for_load(
        &self,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        if !self.shared.client_load.refuses(message, Instant::now) {
            return None;
        }
        self.counters().refused_for_load.inc();
        (self.shared.proxy).reject(message, arrival, 503, OVERLOADED, NO_HEADERS, out)
    }

    /// Counts a request of a client that is asked by rate while the host is overloaded. Such a client sends ACK and CANCEL in any case.
    #[inline]
    fn note_request(&self, method: Method, message: Message<'_>, arrival: &Arrival) {
        let by_rate = Some(OverloadAlgorithm::Rate);
        if self.shared.config.sip.overload_control == by_rate
            && !matches!(method, Method::Ack | Method::Cancel)
            && Offer::of_request(message).has(OverloadAlgorithm::Rate)
        {
            let source = arrival.source.ip();
            self.shared.client_load.note(source, Instant::now());
        }
    }

    /// The worker that owns the transaction of a message, if that is another one: a keyed hash of what all messages of a transaction have in
    /// common.
    fn owner(&self, message: Message<'_>, arrival: &Arrival) -> Option<usize> {
        let workers = self.shared.counters.len();
        if workers < 2 || self.stateful.is_none() {
            return None;
        }
        let proxy = &self.shared.proxy;
        let transaction = match message.start_line() {
            StartLine::Request { .. } => proxy.name_of(message, arrival)?.transaction,
            StartLine::Response { .. } => proxy.branch_of(message).ok()?.transaction,
        };
        let owner = transaction.owner(workers);
        (owner != self.number).then_some(owner)
    }

    /// Passes a message to the transactions of this worker. `None` if the host is stateless.
    pub(super) fn belongs(&mut self, message: Message<'_>, arrival: &Arrival) -> Option<Belongs> {
        let stays_here = self.stays_here;
        let (stateful, mut tools) = self.stateful()?;
        Some(stateful.receive(message, arrival, stays_here, &mut tools))
    }

    /// Notes what a next hop says about its load, if this host has asked it. Whoever has received a request knows its branch and can forge a source,
    /// so that a response counts only if it comes from where the request was sent; without transactions, only over a connection.
    fn note_load(&self, response: Message<'_>, arrival: &Arrival) {
        let Some(said) = Overload::of_response(response) else {
            return;
        };
        let Ok(branch) = self.shared.proxy.branch_of(response) else {
            return;
        };
        let was_asked = match self.stateful.as_deref() {
            Some(stateful) => stateful.was_sent_to(branch, arrival),
            None => arrival.transport.is_reliable(),
        };
        if was_asked {
            let load = &self.shared.next_hop_load;
            load.note(arrival.source, &said, Instant::now());
        }
    }

    /// Passes a response to its transaction. If it is to be relayed by its Vias, or to be refused by the first look, the result says whether it is a
    /// further 2xx to an INVITE.
    fn response(&mut self, message: Message<'_>, arrival: &Arrival) -> Result<bool, Look> {
        match self.belongs(message, arrival) {
            Some(Belongs::Handled) => Err(self.handled(message, arrival)),
            Some(Belongs::Dropped(cause)) => Err(self.dropped(cause, message, arrival)),
            Some(Belongs::Again) => Ok(true),
            Some(Belongs::New(_) | Belongs::Stateless) | None => Ok(false),
        }
    }

    /// A transaction has handled the message.
    fn handled(&self, message: Message<'_>, arrival: &Arrival) -> Look {
        if self.reporter.is_watched() {
            self.report_handled(message, arrival);
        }
        Look::Done(None)
    }

    /// Reports a message that a transaction has handled.
    #[cold]
    fn report_handled(&self, message: Message<'_>, arrival: &Arrival) {
        let stateful = self.stateful.as_deref();
        let relayed = stateful.and_then(Stateful::relayed_response);
        let fate = match (message.start_line(), relayed) {
            (StartLine::Response { .. }, Some(to)) => Fate::Returned(to),
            (StartLine::Response { .. }, None) | (StartLine::Request { .. }, _) => Fate::Absorbed,
        };
        self.reporter.report(message, arrival, None, fate);
    }

    fn dropped(&self, cause: &'static str, message: Message<'_>, arrival: &Arrival) -> Look {
        if self.reporter.is_watched() {
            let fate = Fate::dropped(cause);
            self.reporter.report(message, arrival, None, fate);
        }
        Look::Done(None)
    }
}
