//! The data path of one message, from received bytes to what is sent: scan, first look, policy, verdict, reply or relay.

mod judge;
mod request;

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use portcullis_policy::{Edit, Rejection, Verdict, VerdictKind};
use portcullis_sip::{
    Arrival, Destination, Framing, HeaderChange, Index, Message, Received, RelayError, Routes,
    ScanError, StartLine, Target, Transport, scan,
};
use tracing::debug;

pub use request::PolicyRequest;

use crate::config::{Answer, DefaultVerdict};
use crate::metrics::{Lost, Method, Wire, WorkerCounters};
use crate::shared::Shared;
use judge::{Judge, Judgement, Outcome, Patience};

/// What one worker needs to decide on messages. Nothing in it is shared with other workers but through [`Shared`].
pub struct Pipeline {
    shared: Arc<Shared>,
    number: usize,
    judge: Judge,
    routes: Arc<Routes>,
    index: Index,
}

/// What became of a message.
#[derive(Debug)]
pub enum Handled {
    /// It is done. What is to be sent is in the buffer, for this destination; with none, nothing is.
    Done(Option<Destination>),
    /// Its tenant's policy takes long: it is to be decided ([`Pipeline::decide`]) when those of others have had their turn.
    Waits(Box<PolicyRequest>),
}

impl Pipeline {
    /// The pipeline of the worker of this number.
    ///
    /// # Panics
    /// When `shared` has no counters for that worker.
    pub fn new(shared: Arc<Shared>, number: usize) -> Self {
        assert!(number < shared.counters.len(), "every worker has counters");
        Self {
            number,
            judge: Judge::new(Arc::clone(&shared), number),
            routes: shared.routes.load_full(),
            index: Index::default(),
            shared,
        }
    }

    /// What the worker counts.
    pub fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[self.number]
    }

    /// What all workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes over new routes, if there are any. Once for each batch of messages; policy and table are looked up anew for each
    /// message anyway.
    pub fn refresh(&mut self) {
        let current = self.shared.routes.load();
        if !Arc::ptr_eq(&current, &self.routes) {
            self.routes = Arc::clone(&current);
        }
    }

    /// Takes over everything that is new, so that what it replaces can go while no message comes.
    pub fn refresh_all(&mut self) {
        self.refresh();
        self.judge.refresh();
    }

    /// When the last call of a policy ended: a clock that costs nothing and stands still while none is asked.
    pub fn judged_at(&self) -> Instant {
        self.judge.ended()
    }

    /// Decides on one datagram or framed message, unless it is a request that lets others go first. What comes behind such a one in a
    /// stream has to stay behind it; among datagrams the pipeline sees to that, if those that wait are decided in the order in which
    /// they came. The bytes come back, so that their buffer can be reused.
    pub fn handle(
        &mut self,
        bytes: Vec<u8>,
        framing: Framing,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> (Vec<u8>, Handled) {
        let patience = match framing {
            Framing::Datagram => Patience::InRow,
            Framing::Stream => Patience::ByItself,
        };
        let mut index = mem::take(&mut self.index);
        let scanned = scan(&bytes, framing, &self.shared.config.sip.limits, &mut index);
        let received = self.look(Message::new(&bytes, &index), scanned, arrival, out);
        let request = PolicyRequest {
            bytes,
            index,
            arrival: *arrival,
        };
        let (request, handled) = match received {
            Received::Judge => self.judge(request, out, patience),
            Received::Reply(destination) | Received::Forward(destination) => {
                (request, Handled::Done(Some(destination)))
            }
            Received::Absorbed | Received::Drop(_) => (request, Handled::Done(None)),
        };
        self.index = request.index;
        (request.bytes, handled)
    }

    /// Decides on a request that waited.
    pub fn decide(&mut self, request: PolicyRequest, out: &mut Vec<u8>) -> Option<Destination> {
        let (request, judgement) = self.judge.judge(request, Patience::None);
        self.carry_out(&judgement?, &request, out)
    }

    /// To be told when no datagram waits any more.
    pub fn none_waits(&mut self) {
        self.judge.none_waits();
    }

    /// Answers a stream whose bytes cannot be framed, as far as they can be read. `readable` are whole lines of the message.
    pub fn unframed(
        &mut self,
        readable: &[u8],
        error: &ScanError,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let mut index = Index::default();
        let limits = &self.shared.config.sip.limits;
        // What the scan says about the cut-off message is of no interest: the framer knows what is wrong.
        let _readable = scan(readable, Framing::Stream, limits, &mut index);
        match self.look(Message::new(readable, &index), Err(*error), arrival, out) {
            Received::Reply(destination) => Some(destination),
            _ => None,
        }
    }

    /// What goes back to the sender of a request that could not be delivered (RFC 3261 §16.9): a 503 as if the next hop had
    /// sent it. It finds its way back by the Vias, so no state is needed. `bytes` is the request as it was relayed to `to`.
    pub fn undeliverable(
        &self,
        bytes: &[u8],
        to: &Destination,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let next_hop = Arrival {
            source: to.addr,
            local: to.from?,
            transport: to.transport,
            connection: None,
        };
        let Shared { proxy, config, .. } = &*self.shared;
        let limits = &config.sip.limits;
        let mut index = Index::default();
        scan(bytes, Framing::Stream, limits, &mut index).ok()?;
        let request = Message::new(bytes, &index);
        let mut reply = Vec::new();
        proxy.reject(request, &next_hop, 503, UNREACHABLE, NO_HEADERS, &mut reply)?;
        let scanned = scan(&reply, Framing::Stream, limits, &mut index);
        let reply = Message::new(&reply, &index);
        let Received::Forward(destination) = proxy.receive(reply, scanned, &next_hop, out) else {
            return None;
        };
        self.counters().replies.inc(503);
        Some(destination)
    }

    /// The first look, and its count.
    fn look(
        &self,
        message: Message<'_>,
        scanned: Result<(), ScanError>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Received {
        let counters = self.counters();
        let wire = counters.wire(wire_of(arrival.transport));
        if scanned.is_ok() {
            match message.start_line() {
                StartLine::Request { method, .. } => wire.requests.inc(Method::of(method)),
                StartLine::Response { .. } => wire.responses.inc(),
            }
        }
        let received = self.shared.proxy.receive(message, scanned, arrival, out);
        match &received {
            Received::Judge => {}
            Received::Reply(_) => counters.replies.inc(code_of(out)),
            Received::Forward(_) => counters.relayed_responses.inc(),
            Received::Absorbed => counters.absorbed_acks.inc(),
            Received::Drop(reason) => counters.dropped.inc(*reason),
        }
        received
    }

    /// Asks the policies and does what they say, unless the request is to wait, if it may.
    fn judge(
        &mut self,
        request: PolicyRequest,
        out: &mut Vec<u8>,
        patience: Patience,
    ) -> (PolicyRequest, Handled) {
        let (request, judgement) = self.judge.judge(request, patience);
        let handled = match judgement {
            Some(judgement) => Handled::Done(self.carry_out(&judgement, &request, out)),
            // The buffer is that of the socket, and large.
            None => Handled::Waits(Box::new(request.clone())),
        };
        (request, handled)
    }

    fn carry_out(
        &self,
        judgement: &Judgement,
        request: &PolicyRequest,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let (message, arrival) = (request.message(), &request.arrival);
        let verdicts = &self.counters().verdicts;
        let tenant = judgement.tenant.as_deref();
        match &judgement.outcome {
            Outcome::Verdict(verdict) => {
                verdicts.inc(VerdictKind::of(verdict));
                match verdict {
                    Verdict::Relay(next_hop) => {
                        let target = next_hop
                            .as_deref()
                            .map_or(Target::AsRouted, Target::NextHop);
                        self.relay(target, judgement, message, arrival, out)
                    }
                    Verdict::Reject(rejection) => match self.shown_id(judgement) {
                        None => self.reject(rejection, message, arrival, out),
                        Some((name, id)) => {
                            let mut rejection = rejection.clone();
                            rejection.headers.push((name.to_owned(), id));
                            self.reject(&rejection, message, arrival, out)
                        }
                    },
                    Verdict::Drop | Verdict::Pass => None,
                }
            }
            Outcome::Default => {
                verdicts.inc(VerdictKind::Pass);
                let default = match tenant {
                    Some(tenant) => &tenant.default,
                    None => &self.shared.config.policy.default,
                };
                match default {
                    DefaultVerdict::Relay => {
                        self.relay(Target::AsRouted, judgement, message, arrival, out)
                    }
                    DefaultVerdict::Reject(answer) => self.answer(answer, message, arrival, out),
                    DefaultVerdict::Drop => None,
                }
            }
            Outcome::Failed(answer) => self.answer(answer, message, arrival, out),
        }
    }

    fn relay(
        &self,
        target: Target<'_>,
        judgement: &Judgement,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let proxy = &self.shared.proxy;
        let tenant = judgement.tenant.as_deref();
        let id = self.shown_id(judgement);
        let id = id
            .as_ref()
            .map(|(name, id)| HeaderChange::Add { name, value: id });
        let changes: Vec<_> = judgement.edits.iter().map(change_of).chain(id).collect();
        let own = tenant.and_then(|tenant| tenant.routes.as_ref());
        let relayed = match own {
            Some(routes) => {
                proxy.relay_changed(message, arrival, &routes.load(), target, &changes, out)
            }
            None => proxy.relay_changed(message, arrival, &self.routes, target, &changes, out),
        };
        match relayed {
            Ok(destination) => {
                self.counters().relayed_requests.inc();
                Some(destination)
            }
            Err(error) => {
                if let Some(tenant) = tenant {
                    tenant.counters[self.number].refused_relays.inc();
                }
                self.refuse(&error, message, arrival, out)
            }
        }
    }

    /// The header field that shows the decision's id, if one does.
    fn shown_id(&self, judgement: &Judgement) -> Option<(&str, String)> {
        let name = self.shared.records.as_ref()?.id_header()?;
        Some((name, judgement.id?.to_string()))
    }

    fn refuse(
        &self,
        error: &RelayError,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        debug!(%error, source = %arrival.source, "The request cannot be relayed.");
        self.counters().relay_errors.inc(error.kind());
        self.send_reply(
            error.code(),
            error.reason(),
            NO_HEADERS,
            message,
            arrival,
            out,
        )
    }

    fn reject(
        &self,
        rejection: &Rejection,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let Rejection {
            code,
            reason,
            headers,
        } = rejection;
        self.send_reply(*code, reason, headers, message, arrival, out)
    }

    fn answer(
        &self,
        answer: &Answer,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        self.send_reply(
            answer.code,
            &answer.reason,
            NO_HEADERS,
            message,
            arrival,
            out,
        )
    }

    fn send_reply<H: AsRef<str>>(
        &self,
        code: u16,
        reason: &str,
        headers: &[(H, H)],
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let proxy = &self.shared.proxy;
        let destination = proxy.reject(message, arrival, code, reason, headers, out);
        match destination {
            Some(_) => self.counters().replies.inc(code),
            None => self.counters().lost.inc(Lost::Unanswerable),
        }
        destination
    }
}

/// A change to the header as the proxy makes it.
fn change_of(edit: &Edit) -> HeaderChange<'_> {
    match edit {
        Edit::Add { name, value } => HeaderChange::Add { name, value },
        Edit::Remove { name } => HeaderChange::Remove(name),
    }
}

/// The label of a transport.
pub(crate) fn wire_of(transport: Transport) -> Wire {
    match transport {
        Transport::Tcp => Wire::Tcp,
        _ => Wire::Udp,
    }
}

/// The status code of a reply that we wrote: `SIP/2.0 401 …`.
fn code_of(reply: &[u8]) -> u16 {
    let digits = reply.get(8..11).unwrap_or_default();
    digits.iter().fold(0, |code, digit| {
        code * 10 + u16::from(digit.wrapping_sub(b'0'))
    })
}

const NO_HEADERS: &[(&str, &str)] = &[];

/// What callers read when the next hop takes no connection.
const UNREACHABLE: &str = "Next Hop Unreachable";
