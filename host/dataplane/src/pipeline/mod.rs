//! The data path of one message, from received bytes to sent bytes: scan, first look, policy, verdict, reply or relay.

mod draining;
mod fate;
mod judge;
mod relaying;
mod reporter;
mod responder;
mod stateful;
mod targets;
mod transactions;

use std::fmt::Display;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use portcullis_policy::{Rejection, Verdict, VerdictKind};
use portcullis_sip::{
    Arrival, Destination, DialogSeal, Framing, HeaderName, Index, Message, Received, RelayError,
    RequestName, Routes, ScanError, StartLine, Transport, scan,
};

use tracing::debug;

use portcullis_config::{Answer, DefaultVerdict, InDialog as Mode, RelayMode};
use portcullis_metrics::{InDialog, Label, Lost, Method, Wire, WorkerCounters};
use portcullis_request::Request;

use crate::notices::{Example, Trouble};
use crate::shared::Shared;
use fate::Fate;
use judge::{Judge, Judgement, Outcome, Patience};
use relaying::Relaying;
use responder::answers::Answers;
use stateful::{Belongs, Stateful};

pub(crate) use reporter::Loss;

/// The state of one worker for deciding on messages. Other workers share only what is in [`Shared`].
pub struct Pipeline {
    shared: Arc<Shared>,
    number: usize,
    judge: Judge,
    answers: Answers,
    routes: Arc<Routes>,
    index: Index,
    /// The transactions; `None` with `mode = "stateless"`.
    stateful: Option<Box<Stateful>>,
}

/// The result of handling a message.
#[derive(Debug)]
pub enum Handled {
    /// Done. What is to be sent is in the buffer, for this destination; with `None`, nothing is sent.
    Done(Option<Destination>),
    /// Done. What is to be sent is to be taken ([`Pipeline::take_sends`]): the request is relayed in a transaction.
    Relayed,
    /// The tenant's policy is slow: the request is to be decided later ([`Pipeline::decide`]), after those of other tenants.
    Waits(Box<Request>),
    /// The transaction of the message belongs to this worker, which is to handle the message.
    HandOver(usize),
}

/// The result of the first look at a message.
enum Look {
    /// A valid request: policies decide, unless it follows its dialog. With a name, it becomes a transaction if it is relayed.
    Judge(Option<RequestName>),
    /// Done, as in [`Handled::Done`].
    Done(Option<Destination>),
    /// As in [`Handled::HandOver`].
    HandOver(usize),
}

impl Pipeline {
    /// The pipeline of the worker with this number.
    ///
    /// # Panics
    /// When `shared` has no counters for that worker.
    pub fn new(shared: Arc<Shared>, number: usize) -> Self {
        assert!(number < shared.counters.len(), "every worker has counters");
        let sip = &shared.config.sip;
        // The time stamp of the first messages; a periodic task of the worker updates it.
        shared.proxy.set_time(portcullis_text::unix_seconds());
        Self {
            number,
            answers: Answers::new(sip.answers_per_second, sip.answers_burst, Instant::now()),
            judge: Judge::new(Arc::clone(&shared), number),
            routes: shared.routes.load_full(),
            index: Index::default(),
            stateful: match shared.config.relay.mode {
                RelayMode::Stateful => {
                    let operator = Arc::clone(&shared.tenants.load().default.counters);
                    let stateful = Stateful::new(&shared.proxy, &shared.config, operator, number);
                    Some(Box::new(stateful))
                }
                RelayMode::Stateless => None,
            },
            shared,
        }
    }

    /// The counters of the worker.
    pub fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[self.number]
    }

    /// The number of the worker.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// The state that all workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Loads new routes, if there are any. Called once per batch of messages; policy and table are loaded for each message anyway.
    pub fn refresh(&mut self) {
        let current = self.shared.routes.load();
        if !Arc::ptr_eq(&current, &self.routes) {
            self.routes = Arc::clone(&current);
        }
    }

    /// Loads all new state, so that replaced state can be freed even if no message arrives.
    pub fn refresh_all(&mut self) {
        self.refresh();
        self.judge.refresh();
    }

    /// End of the last policy call: a clock that costs nothing and does not advance while no policy is called.
    pub fn judged_at(&self) -> Instant {
        self.judge.ended()
    }

    /// Decides on one datagram or framed message, unless it is a request to be deferred. In a stream, later messages must stay behind a
    /// deferred one; for datagrams the pipeline ensures the order, provided that deferred requests are decided in the order in which they
    /// arrived. The bytes are returned, so that their buffer can be reused.
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
        self.handle_with(patience, bytes, framing, arrival, out)
    }

    /// The same for a message that another worker has handed over. The worker queues a deferred request, as those in datagrams, and the
    /// pipeline ensures the order: the connection of a message in a stream does not wait for it.
    pub fn handle_handed_over(
        &mut self,
        bytes: Vec<u8>,
        framing: Framing,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> (Vec<u8>, Handled) {
        self.handle_with(Patience::InRow, bytes, framing, arrival, out)
    }

    fn handle_with(
        &mut self,
        patience: Patience,
        bytes: Vec<u8>,
        framing: Framing,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> (Vec<u8>, Handled) {
        let mut index = mem::take(&mut self.index);
        let scanned = scan(&bytes, framing, &self.shared.config.sip.limits, &mut index);
        let look = self.look(Message::new(&bytes, &index), scanned, arrival, out);
        let request = Request {
            bytes,
            index,
            arrival: *arrival,
        };
        let (request, handled) = match look {
            Look::Judge(name) => match self.follow(&request, name, out) {
                Some(handled) => (request, handled),
                None => self.judge(request, name, out, patience),
            },
            Look::Done(sent) => (request, Handled::Done(sent)),
            Look::HandOver(worker) => (request, Handled::HandOver(worker)),
        };
        self.index = request.index;
        (request.bytes, handled)
    }

    /// Decides on a deferred request.
    pub fn decide(&mut self, request: Request, out: &mut Vec<u8>) -> Option<Destination> {
        // A copy of it may have been decided on, and a CANCEL may have come.
        let name = match self.belongs(request.message(), &request.arrival) {
            None | Some(Belongs::Stateless) => None,
            Some(Belongs::New(name)) => Some(name),
            Some(Belongs::Handled | Belongs::Dropped(_)) => return None,
        };
        let (request, judgement) = self.judge.judge(request, Patience::None);
        match self.carry_out(judgement?, &request, name, out) {
            Handled::Done(destination) => destination,
            Handled::Relayed | Handled::Waits(_) | Handled::HandOver(_) => None,
        }
    }

    /// Notes that no datagram is deferred any more.
    pub fn none_waits(&mut self) {
        self.judge.none_waits();
    }

    /// Answers a message of a stream that was not framed: it is above a limit, or its end is unknown. `readable` contains whole lines of
    /// the message, or its reduced header section.
    pub fn unframed(
        &mut self,
        readable: &[u8],
        error: &ScanError,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let mut index = Index::default();
        let limits = &self.shared.config.sip.limits;
        // The framer has reported the error; a further error of the incomplete message does not matter.
        let _readable = scan(readable, Framing::Stream, limits, &mut index);
        match self.look(Message::new(readable, &index), Err(*error), arrival, out) {
            Look::Done(destination) => destination,
            Look::Judge(_) | Look::HandOver(_) => None,
        }
    }

    /// The response to the sender of a request that could not be delivered (RFC 3261 §16.9): a 503 as if the next hop had sent it. It is
    /// routed back by the Vias, so no state is needed. `bytes` is the request as it was relayed to `to`.
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

    /// Relays a request of an admitted dialog along its path, if it is to follow the dialog. `None` if policies are to be called.
    fn follow(
        &mut self,
        request: &Request,
        name: Option<RequestName>,
        out: &mut Vec<u8>,
    ) -> Option<Handled> {
        if self.shared.config.policy.in_dialog == Mode::Ask {
            return None;
        }
        let counters = &self.shared.counters[self.number].in_dialog;
        let dialog = match self.shared.proxy.dialog(request.message()) {
            DialogSeal::None => return None,
            DialogSeal::Valid(dialog) => dialog,
            DialogSeal::Forged => {
                counters.inc(InDialog::Forged);
                return None;
            }
            DialogSeal::Expired => {
                counters.inc(InDialog::Expired);
                return None;
            }
        };
        let Some(judgement) = self.judge.follow(request, dialog) else {
            counters.inc(InDialog::Ownerless);
            return None;
        };
        counters.inc(InDialog::Followed);
        Some(self.carry_out(judgement, request, name, out))
    }

    /// The first look, with its counters.
    fn look(
        &mut self,
        message: Message<'_>,
        scanned: Result<(), ScanError>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Look {
        if scanned.is_ok() {
            if let Some(owner) = self.owner(message, arrival) {
                return Look::HandOver(owner);
            }
            let wire = self.counters().wire(wire_of(arrival.transport));
            match message.start_line() {
                StartLine::Request { method, .. } => wire.requests.inc(Method::of(method)),
                StartLine::Response { .. } => {
                    wire.responses.inc();
                    if let Some(look) = self.response(message, arrival) {
                        return look;
                    }
                }
            }
        }
        let mut name = None;
        let mut received = self.shared.proxy.receive(message, scanned, arrival, out);
        if self.is_ping_of_draining(message, &received, out)
            && let Some(reply) = self.refuse_as_draining(message, arrival, out)
        {
            received = Received::Reply(reply);
        }
        if matches!(received, Received::Judge | Received::Absorbed) {
            match self.belongs(message, arrival) {
                None | Some(Belongs::Stateless) => {}
                Some(Belongs::New(new)) => {
                    name = Some(new);
                    let refused = if self.shared.proxy.is_loop(message, arrival) {
                        self.refuse_loop(message, arrival, out)
                    } else if self.refuses_as_draining(message) {
                        self.refuse_as_draining(message, arrival, out)
                    } else {
                        None
                    };
                    received = refused.map_or(received, Received::Reply);
                }
                Some(Belongs::Handled) => {
                    if matches!(received, Received::Absorbed) {
                        self.answers.give_back(arrival.source.ip());
                    }
                    return self.handled(message, arrival);
                }
                Some(Belongs::Dropped(cause)) => return self.dropped(cause, message, arrival),
            }
        }
        let counters = self.counters();
        match &received {
            Received::Judge => {}
            Received::Reply(_) if !self.may_answer(arrival, Instant::now) => {
                self.keep_back(Lost::AnswerLimit, message, arrival);
                let cause = Lost::AnswerLimit.label();
                return self.dropped(cause, message, arrival);
            }
            Received::Reply(_) => counters.replies.inc(code_of(out)),
            Received::Forward(_) => counters.relayed_responses.inc(),
            Received::Absorbed => {
                counters.absorbed_acks.inc();
                self.answers.give_back(arrival.source.ip());
            }
            Received::Drop(reason) => counters.dropped.inc(*reason),
        }
        if self.is_watched() {
            self.tell_look(message, scanned, arrival, &received, out);
        }
        match received {
            Received::Judge => Look::Judge(name),
            Received::Reply(destination) | Received::Forward(destination) => {
                Look::Done(Some(destination))
            }
            Received::Absorbed | Received::Drop(_) => Look::Done(None),
        }
    }

    /// Passes a response to its transaction. `None` if it is to be relayed by its Vias, or to be refused by the first look.
    fn response(&mut self, message: Message<'_>, arrival: &Arrival) -> Option<Look> {
        match self.belongs(message, arrival)? {
            Belongs::Handled => Some(self.handled(message, arrival)),
            Belongs::Dropped(cause) => Some(self.dropped(cause, message, arrival)),
            Belongs::New(_) | Belongs::Stateless => None,
        }
    }

    /// A transaction has handled the message.
    fn handled(&self, message: Message<'_>, arrival: &Arrival) -> Look {
        if self.is_watched() {
            self.tell_handled(message, arrival);
        }
        Look::Done(None)
    }

    fn dropped(&self, cause: &'static str, message: Message<'_>, arrival: &Arrival) -> Look {
        if self.is_watched() {
            let fate = Fate::Dropped {
                cause,
                detail: None,
            };
            self.tell(message, arrival, None, fate);
        }
        Look::Done(None)
    }

    /// Logs the result of the first look.
    fn tell_look(
        &self,
        message: Message<'_>,
        scanned: Result<(), ScanError>,
        arrival: &Arrival,
        received: &Received,
        out: &[u8],
    ) {
        let error = scanned.err();
        let detail = error.as_ref().map(|error| error as &dyn Display);
        match received {
            Received::Reply(_) if code_of(out) >= 400 => {
                let fate = Fate::Rejected {
                    code: code_of(out),
                    reason: fate::phrase_of(out),
                    cause: "check",
                    detail,
                };
                self.tell(message, arrival, None, fate);
            }
            Received::Drop(reason) => {
                let cause = reason.label();
                self.tell(message, arrival, None, Fate::Dropped { cause, detail });
            }
            Received::Reply(_) => {
                let fate = Fate::Answered {
                    code: code_of(out),
                    reason: fate::phrase_of(out),
                };
                self.tell(message, arrival, None, fate);
            }
            Received::Forward(to) => self.tell(message, arrival, None, Fate::Returned(*to)),
            Received::Absorbed => self.tell(message, arrival, None, Fate::Absorbed),
            Received::Judge => {}
        }
    }

    /// Calls the policies and carries out the verdict, unless the request is to be deferred, if it may.
    fn judge(
        &mut self,
        request: Request,
        name: Option<RequestName>,
        out: &mut Vec<u8>,
        patience: Patience,
    ) -> (Request, Handled) {
        let (request, judgement) = self.judge.judge(request, patience);
        let handled = match judgement {
            Some(judgement) => self.carry_out(judgement, &request, name, out),
            // The buffer belongs to the socket, and is large.
            None => Handled::Waits(Box::new(request.clone())),
        };
        (request, handled)
    }

    /// Carries out a decision. A relayed request becomes a transaction with this name, if there is one.
    fn carry_out(
        &mut self,
        judgement: Judgement,
        request: &Request,
        name: Option<RequestName>,
        out: &mut Vec<u8>,
    ) -> Handled {
        let (message, arrival) = (request.message(), &request.arrival);
        let verdicts = &self.counters().verdicts;
        let sent = match &judgement.outcome {
            Outcome::Verdict(verdict) => {
                verdicts.inc(VerdictKind::of(verdict));
                match verdict {
                    Verdict::Relay(_) => {
                        return self.relay(judgement, name, message, arrival, out);
                    }
                    Verdict::Reject(rejection) => match self.relaying().shown_id(&judgement) {
                        None => self.reject(rejection, &judgement, message, arrival, out),
                        Some((name, id)) => {
                            let mut rejection = rejection.clone();
                            rejection.headers.push((name.to_owned(), id));
                            self.reject(&rejection, &judgement, message, arrival, out)
                        }
                    },
                    Verdict::Drop | Verdict::Pass => self.drop_it(&judgement, message, arrival),
                }
            }
            Outcome::Default => {
                verdicts.inc(VerdictKind::Pass);
                let tenant = judgement.tenant.as_deref();
                let default = match tenant {
                    Some(tenant) => &tenant.default,
                    None => &self.shared.config.policy.default,
                };
                match default {
                    DefaultVerdict::Relay => {
                        return self.relay(judgement, name, message, arrival, out);
                    }
                    DefaultVerdict::Reject(answer) => {
                        self.answer(answer, &judgement, message, arrival, out)
                    }
                    DefaultVerdict::Drop => self.drop_it(&judgement, message, arrival),
                }
            }
            Outcome::Failed(answer) => self.answer(answer, &judgement, message, arrival, out),
            Outcome::Within(_) => return self.relay(judgement, name, message, arrival, out),
        };
        Handled::Done(sent)
    }

    fn relay(
        &mut self,
        judgement: Judgement,
        name: Option<RequestName>,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Handled {
        if let Some(name) = name {
            return self.relay_in_transaction(name, judgement, message, arrival, out);
        }
        let relaying = self.relaying();
        let branch = relaying.stateless_branch(message, arrival, self.stateful.is_some());
        // Without a transaction, nothing follows the first target.
        let targets = match &judgement.forwarding {
            Some(forwarding) => relaying.in_order((**forwarding).clone(), message),
            None => Vec::new(),
        };
        let target = targets.first();
        let sent = match relaying.write(message, arrival, &judgement, target, branch, out) {
            Ok(destination) => {
                self.counters().relayed_requests.inc();
                if self.is_watched() {
                    let fate = Fate::Relayed(destination);
                    self.tell(message, arrival, Some(&judgement), fate);
                }
                Some(destination)
            }
            Err(error) => self.refuse(&error, &judgement, message, arrival, out),
        };
        Handled::Done(sent)
    }

    fn relaying(&self) -> Relaying<'_> {
        Relaying::new(&self.shared, self.number, &self.routes)
    }

    fn refuse(
        &self,
        error: &RelayError,
        judgement: &Judgement,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        self.relaying()
            .count_refused(error, message, arrival, judgement);
        let fate = Fate::Rejected {
            code: error.code(),
            reason: error.reason(),
            cause: error.kind().label(),
            detail: Some(error),
        };
        self.send_reply(&fate, NO_HEADERS, judgement, message, arrival, out)
    }

    fn reject(
        &self,
        rejection: &Rejection,
        judgement: &Judgement,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let fate = Fate::Rejected {
            code: rejection.code,
            reason: &rejection.reason,
            cause: judgement.cause.label(),
            detail: None,
        };
        self.send_reply(&fate, &rejection.headers, judgement, message, arrival, out)
    }

    fn answer(
        &self,
        answer: &Answer,
        judgement: &Judgement,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let fate = Fate::Rejected {
            code: answer.code,
            reason: &answer.reason,
            cause: judgement.cause.label(),
            detail: None,
        };
        self.send_reply(&fate, NO_HEADERS, judgement, message, arrival, out)
    }

    /// Sends no response.
    fn drop_it(
        &self,
        judgement: &Judgement,
        message: Message<'_>,
        arrival: &Arrival,
    ) -> Option<Destination> {
        if self.is_watched() {
            let fate = Fate::Dropped {
                cause: judgement.cause.label(),
                detail: None,
            };
            self.tell(message, arrival, Some(judgement), fate);
        }
        None
    }

    /// Sends a response, if one is permitted, and without the header fields of the policy if it would be too large. Whoever forges a source
    /// address must not be able to make this host send it much more than the host received, or flood it.
    fn send_reply<H: AsRef<str>>(
        &self,
        fate: &Fate<'_>,
        headers: &[(H, H)],
        judgement: &Judgement,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let Fate::Rejected { code, reason, .. } = *fate else {
            return None;
        };
        let proxy = &self.shared.proxy;
        let destination = proxy.reject(message, arrival, code, reason, headers, out);
        let kept_back = match destination {
            None => Some(Lost::Unanswerable),
            Some(_) if !self.may_answer(arrival, || judgement.at) => Some(Lost::AnswerLimit),
            Some(_) => None,
        };
        if let Some(lost) = kept_back {
            self.keep_back(lost, message, arrival);
            if self.is_watched() {
                let fate = Fate::Dropped {
                    cause: lost.label(),
                    detail: None,
                };
                self.tell(message, arrival, Some(judgement), fate);
            }
            return None;
        }
        if self
            .relaying()
            .is_too_large(out.len(), message.bytes().len(), arrival)
        {
            debug!(
                event = "answer_shortened",
                source = %arrival.source,
                code,
                bytes = out.len(),
                "policy's answer too large for a source over UDP, sent without the policy's header fields"
            );
            self.counters().shortened_answers.inc();
            proxy.reject(message, arrival, code, reason, NO_HEADERS, out)?;
        }
        self.counters().replies.inc(code);
        if self.is_watched() {
            self.tell(message, arrival, Some(judgement), *fate);
        }
        destination
    }

    /// Counts a response that is not sent.
    fn keep_back(&self, lost: Lost, message: Message<'_>, arrival: &Arrival) {
        self.counters().lost.inc(lost);
        if let Some(trouble) = Trouble::of_loss(lost) {
            let example = || {
                let call_id = message.header(HeaderName::CallId);
                let call_id = call_id.map_or(&b""[..], |field| field.value);
                let what = format!("an answer over UDP to {}", arrival.source.ip());
                Example::new(call_id, Some(arrival.source), what)
            };
            self.note(trouble, 1, example);
        }
    }

    /// Whether a response may be sent to the source of the request: see `answers-per-second` in `[sip]`. `now` is called only if there is a
    /// limit.
    fn may_answer(&self, arrival: &Arrival, now: impl FnOnce() -> Instant) -> bool {
        self.may_send(arrival.transport, arrival.source, now)
    }

    /// The same for a response to this address.
    fn may_send(
        &self,
        transport: Transport,
        to: SocketAddr,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        if transport.is_reliable()
            || !self.answers.is_limited()
            || self.answers.take(to.ip(), now())
        {
            return true;
        }
        if self.relaying().knows_address(to.ip()) {
            // The next lookup is due when the source has used up its limit again.
            self.answers.forget(to.ip());
            return true;
        }
        false
    }
}

/// The label of a transport.
pub(crate) fn wire_of(transport: Transport) -> Wire {
    match transport {
        Transport::Udp => Wire::Udp,
        Transport::Tcp => Wire::Tcp,
    }
}

/// The status code of a reply written by this host: `SIP/2.0 401 …`.
fn code_of(reply: &[u8]) -> u16 {
    let digits = reply.get(8..11).unwrap_or_default();
    digits.iter().fold(0, |code, digit| {
        code * 10 + u16::from(digit.wrapping_sub(b'0'))
    })
}

const NO_HEADERS: &[(&str, &str)] = &[];

/// Reason phrase when the next hop refuses connections.
const UNREACHABLE: &str = "Next Hop Unreachable";
