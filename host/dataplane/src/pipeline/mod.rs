//! The data path of one message, from received bytes to sent bytes: scan, first look, policy, verdict, reply or relay.

mod draining;
mod fate;
mod judge;
mod pings;
mod relaying;
mod reporter;
mod responder;
mod stateful;
mod strangers;
mod targets;

use std::fmt::Display;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use portcullis_policy::{Rejection, Verdict, VerdictKind};
use portcullis_sip::{
    Arrival, Branch, Destination, Dialog, DialogSeal, DropReason, Forwarded, Framing, Index,
    Message, Offer, Overload, OverloadAlgorithm, Received, RelayError, RequestName, Routes,
    ScanError, StartLine, Transport, scan,
};

use portcullis_config::{Answer, DefaultVerdict, InDialog as Mode, RelayMode};
use portcullis_metrics::{InDialog, Label, Lost, Method, Wire, WorkerCounters};
use portcullis_request::Request;
use portcullis_transaction::{NameSlot, Outbox, max_breadth};

use crate::active::{CallName, CancelledPage, Page};
use crate::link::Predecessor;
use crate::orders::NamesPage;
use crate::shared::Shared;
use fate::{Fate, Rejected};
use judge::{Judge, Judged, Judgement, Outcome, Patience};
use relaying::Relaying;
use responder::{NO_HEADERS, Responder};
use stateful::{Begun, Belongs, NotBegun, Stateful, Tools};

pub(crate) use reporter::{Loss, Reporter};
pub(crate) use responder::Answers;

/// The state of one worker for deciding on messages. Other workers share only what is in [`Shared`].
pub struct Pipeline {
    shared: Arc<Shared>,
    number: usize,
    judge: Judge,
    reporter: Reporter,
    responder: Responder,
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

/// Reason phrase of the answer to a request that an overloaded host does not serve.
const OVERLOADED: &str = "Overloaded";

impl Pipeline {
    /// The pipeline of the worker with this number.
    ///
    /// # Panics
    /// When `shared` has no counters for that worker.
    pub fn new(shared: Arc<Shared>, number: usize) -> Self {
        assert!(number < shared.counters.len(), "every worker has counters");
        // The time stamp of the first messages; a periodic task of the worker updates it.
        shared.proxy.set_time(portcullis_text::unix_seconds());
        let reporter = Reporter::new(Arc::clone(&shared), number);
        Self {
            number,
            responder: Responder::new(Arc::clone(&shared), number, reporter.clone()),
            reporter,
            judge: Judge::new(Arc::clone(&shared), number),
            routes: shared.routes.load_full(),
            index: Index::default(),
            stateful: match shared.config.relay.mode {
                RelayMode::Stateful => {
                    let operator = Arc::clone(&shared.tenants.load().default.counters);
                    let next_hops = shared.config.relay.next_hops.iter();
                    let attempts = &shared.counters[number].transactions.next_hop_attempts;
                    attempts.begin(next_hops.map(|(name, _)| &**name));
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

    /// Reports what happens to messages.
    pub(crate) fn reporter(&self) -> &Reporter {
        &self.reporter
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
        if !self.responder.strangers().admits(&bytes, arrival) {
            return (bytes, Handled::Done(None));
        }
        let patience = match arrival.connection {
            None => Patience::InRow,
            Some(_) => Patience::ByItself,
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

    /// Whether a connection of this peer is closed at once, because it is banned. Counts it. The peer has proved its address.
    pub(crate) fn refuses_peer(&self, peer: SocketAddr) -> bool {
        self.responder.proved(peer.ip());
        self.responder.strangers().refuses_peer(peer)
    }

    /// Notes a datagram from this address, before anything else: as many bytes may go back.
    #[inline]
    pub(crate) fn received_datagram(&self, source: SocketAddr, bytes: usize) {
        self.responder.received(source.ip(), bytes);
    }

    /// Whether this datagram may be sent. Counts it, and the loss of one that may not.
    #[inline]
    pub(crate) fn may_send_datagram(&self, datagram: &[u8], to: SocketAddr) -> bool {
        let is_paid = self.responder.pays_for(datagram, to);
        if !is_paid {
            self.reporter.lose(&Loss {
                lost: Lost::AnswerLimit,
                bytes: datagram,
                transport: Transport::Udp,
                peer: to,
                detail: &"the address has not proved itself: see `unproved-bytes` in [sip]",
            });
        }
        is_paid
    }

    /// Decides on a deferred request.
    pub fn decide(&mut self, request: Request, out: &mut Vec<u8>) -> Option<Destination> {
        // A copy of it may have been decided on, and a CANCEL may have come.
        let name = match self.belongs(request.message(), &request.arrival) {
            None | Some(Belongs::Stateless | Belongs::Again) => None,
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

    /// The response to the sender of a request that could not be delivered (RFC 3261 §16.9). `bytes` is the request as it was relayed to `to`.
    pub fn undeliverable(
        &self,
        bytes: &[u8],
        to: &Destination,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        self.responder.undeliverable(bytes, to, out)
    }

    /// Whether a STUN request from this source may be answered now.
    pub(crate) fn admits_stun(&self, source: IpAddr) -> bool {
        self.shared.config.nat.stun && self.responder.admits_stun(source)
    }

    /// Relays a request of an admitted dialog along its path, if it is to follow the dialog. `None` if policies are to be called.
    fn follow(
        &mut self,
        request: &Request,
        name: Option<RequestName>,
        out: &mut Vec<u8>,
    ) -> Option<Handled> {
        self.end_call(request);
        let seal = self.shared.proxy.dialog(request.message());
        let Arrival {
            source, transport, ..
        } = request.arrival;
        if let DialogSeal::Valid(dialog) = seal
            && !transport.is_reliable()
            && dialog.is_from_caller(source.ip())
        {
            self.responder.knows_dialog(source.ip());
        }
        if self.shared.config.policy.in_dialog == Mode::Ask {
            return None;
        }
        let counters = &self.shared.counters[self.number].in_dialog;
        let dialog = match seal {
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

    /// Ends a call to a destination of the dispatcher, if this is its BYE.
    fn end_call(&self, request: &Request) {
        let dispatcher = &self.shared.dispatcher;
        if dispatcher.calls().counted() == 0 || request.method() != "BYE" {
            return;
        }
        match self.shared.proxy.dialog(request.message()) {
            DialogSeal::Valid(_) => dispatcher.end_call(request.call_id_bytes()),
            DialogSeal::None | DialogSeal::Forged | DialogSeal::Expired => {}
        }
    }

    /// The first look, with its counters.
    fn look(
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
    fn belongs(&mut self, message: Message<'_>, arrival: &Arrival) -> Option<Belongs> {
        let (stateful, mut tools) = self.stateful()?;
        Some(stateful.receive(message, arrival, &mut tools))
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
            _ => Fate::Absorbed,
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
        let judged = judgement.on(message, arrival);
        if let Some(offence) = judgement.wishes.report {
            let strangers = self.responder.strangers();
            strangers.reported(offence, message, arrival);
        }
        let verdicts = &self.counters().verdicts;
        let sent = match &judgement.outcome {
            Outcome::Verdict(verdict) => {
                verdicts.inc(VerdictKind::of(verdict));
                match verdict {
                    Verdict::Relay(_) => {
                        return self.relay(judgement, name, message, arrival, out);
                    }
                    Verdict::Reject(rejection) => self.reject(rejection, judged, out),
                    Verdict::Drop | Verdict::Pass => self.drop_it(judged),
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
                    DefaultVerdict::Reject(answer) => self.answer(answer, judged, out),
                    DefaultVerdict::Drop => self.drop_it(judged),
                }
            }
            Outcome::Failed(answer) => self.answer(answer, judged, out),
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
        let judged = judgement.on(message, arrival);
        let sent = match relaying.write(judged, target, branch, &[], out) {
            Ok(Forwarded { to, .. }) if !self.may_call_back(judged, &to, out.len()) => {
                let call_id = responder::call_id_of(message);
                self.responder.keep_back_request(call_id, to.addr);
                if self.reporter.is_watched() {
                    let fate = Fate::dropped(Lost::AnswerLimit.label());
                    let judgement = Some(&judgement);
                    self.reporter.report(message, arrival, judgement, fate);
                }
                None
            }
            Ok(Forwarded {
                to: destination, ..
            }) => {
                self.counters().relayed_requests.inc();
                if self.reporter.is_watched() {
                    let fate = Fate::Relayed(destination);
                    let judgement = Some(&judgement);
                    self.reporter.report(message, arrival, judgement, fate);
                }
                Some(destination)
            }
            Err(error) => self.refuse(&error, judged, out),
        };
        Handled::Done(sent)
    }

    /// Relays a request in a transaction with this name. What is to be sent goes to [`Pipeline::take_sends`], except for the response to a
    /// request that is not relayed.
    fn relay_in_transaction(
        &mut self,
        name: RequestName,
        mut judgement: Judgement,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Handled {
        if max_breadth(message) == 0 {
            let judged = judgement.on(message, arrival);
            return Handled::Done(self.responder.refuse_breadth(judged, out));
        }
        let dialog = self.dialog_of(message, &judgement);
        let is_in_dialog = dialog.is_some();
        if is_in_dialog {
            // A dialog has one path, and nothing else can take the place of its other end.
            (judgement.forwarding, judgement.asker) = (None, None);
        }
        let Some((stateful, mut tools)) = self.stateful() else {
            return Handled::Done(None);
        };
        let judged = judgement.on(message, arrival);
        let mut written = None;
        let targets = judgement.forwarding.as_deref();
        if targets.is_none_or(|forwarding| forwarding.targets.is_empty()) {
            match stateful.write(name, judged, &tools.relaying) {
                Ok(forwarded) => written = Some(forwarded),
                Err(error) => return Handled::Done(self.refuse(&error, judged, out)),
            }
        }
        let Some(back) = tools.relaying.way_up(judged) else {
            return Handled::Done(None);
        };
        let request = Begun {
            name,
            message,
            arrival,
            back,
            dialog,
        };
        match stateful.begin(request, judgement, written, &mut tools) {
            Ok(()) => {
                if let Some(connection) = arrival.connection {
                    self.shared.connections.begins(connection, message.bytes());
                }
                Handled::Relayed
            }
            Err((NotBegun::Exists, _)) => Handled::Done(None),
            Err((NotBegun::NoRoom(_), judgement)) if is_in_dialog => {
                // Without it a call would stay behind. Its responses have no transaction either.
                stateful.adopt();
                self.relay(*judgement, None, message, arrival, out)
            }
            Err((NotBegun::NoRoom(no_room), judgement)) => {
                let judged = judgement.on(message, arrival);
                Handled::Done(self.responder.shed(no_room, judged, out))
            }
        }
    }

    /// The admitted dialog to which a request belongs.
    fn dialog_of(&self, message: Message<'_>, judgement: &Judgement) -> Option<Dialog> {
        match judgement.outcome {
            Outcome::Within(dialog) => Some(dialog),
            Outcome::Verdict(_) | Outcome::Default | Outcome::Failed(_) => {
                match self.shared.proxy.dialog(message) {
                    DialogSeal::Valid(dialog) => Some(dialog),
                    DialogSeal::None | DialogSeal::Forged | DialogSeal::Expired => None,
                }
            }
        }
    }

    /// Whether a request of this size may be sent without a transaction, as far as it goes to the caller of its dialog.
    fn may_call_back(&self, judged: Judged<'_>, to: &Destination, bytes: usize) -> bool {
        let Judged {
            judgement, message, ..
        } = judged;
        to.transport.is_reliable()
            || !self
                .dialog_of(message, judgement)
                .is_some_and(|dialog| dialog.calls_back())
            || self.responder.may_call_back(to.transport, to.addr, bytes)
    }

    /// The transactions, and what they need of the pipeline. `None` in a stateless host.
    fn stateful(&mut self) -> Option<(&mut Stateful, Tools<'_>)> {
        let stateful = self.stateful.as_deref_mut()?;
        let tools = Tools {
            relaying: Relaying::new(&self.shared, self.number, &self.routes),
            responder: &self.responder,
            judge: &mut self.judge,
        };
        Some((stateful, tools))
    }

    /// What writing a relayed request needs.
    fn relaying(&self) -> Relaying<'_> {
        Relaying::new(&self.shared, self.number, &self.routes)
    }

    /// Answers a request that cannot be relayed.
    fn refuse(
        &self,
        error: &RelayError,
        judged: Judged<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        self.relaying().count_refused(error, judged);
        let rejected = Rejected::of_relay(error);
        self.responder.reject(rejected, NO_HEADERS, judged, out)
    }

    /// Answers as a policy says, with the id of the decision if it is shown.
    fn reject(
        &self,
        rejection: &Rejection,
        judged: Judged<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let Judged { judgement, .. } = judged;
        let rejected = Rejected::of_rejection(rejection, judgement.cause.label());
        let headers = &rejection.headers;
        let Some((name, id)) = self.relaying().shown_id(judgement) else {
            return self.responder.reject(rejected, headers, judged, out);
        };
        let mut headers = headers.clone();
        headers.push((name.to_owned(), id));
        self.responder.reject(rejected, &headers, judged, out)
    }

    /// Answers as the configuration says.
    fn answer(
        &self,
        answer: &Answer,
        judged: Judged<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        let rejected = Rejected::of_answer(answer, judged.judgement.cause.label());
        self.responder.reject(rejected, NO_HEADERS, judged, out)
    }

    /// Sends no response.
    fn drop_it(&self, judged: Judged<'_>) -> Option<Destination> {
        if self.reporter.is_watched() {
            let Judged {
                judgement,
                message,
                arrival,
            } = judged;
            let fate = Fate::dropped(judgement.cause.label());
            self.reporter
                .report(message, arrival, Some(judgement), fate);
        }
        None
    }

    /// Exchanges what transactions have to send for the memory of `into`. Returns false if there is nothing. What remains in `into` after the limit
    /// of answers may be nothing, too.
    pub fn take_sends(&mut self, into: &mut Outbox) -> bool {
        into.clear();
        let counters = &self.shared.counters[self.number];
        let stateful = self.stateful.as_deref_mut();
        stateful.is_some_and(|stateful| {
            let flow_pings = self.shared.flow_pings.as_ref();
            stateful.take_sends(into, &self.responder, &self.reporter, counters, flow_pings)
        })
    }

    /// Whether requests are relayed in transactions.
    pub(crate) fn is_stateful(&self) -> bool {
        self.stateful.is_some()
    }

    /// Handles timers that are due, for a short time. Returns false if more are due.
    pub(crate) fn expire(&mut self) -> bool {
        let stateful = self.stateful();
        stateful.is_none_or(|(stateful, mut tools)| stateful.expire(&mut tools))
    }

    /// When the next timer is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.stateful.as_deref()?.next_deadline()
    }

    /// The branch of a request that this host sent and that could not be delivered, and the worker that owns its transaction. `None` in a
    /// stateless host, and for anything without a transaction that could fail.
    pub(crate) fn branch_of_undelivered(&mut self, bytes: &[u8]) -> Option<(Branch, usize)> {
        let workers = self.shared.counters.len();
        let stateful = self.stateful.as_deref_mut()?;
        let branch = stateful.branch_of_undelivered(bytes, &self.shared.proxy)?;
        Some((branch, branch.transaction.owner(workers)))
    }

    /// Whether this request, which was not delivered, is a ping. Notes that, with the reason.
    pub(crate) fn fail_ping(&self, bytes: &[u8], why: Option<&dyn Display>) -> bool {
        pings::fails_with(bytes, why, &self.shared)
    }

    /// Notes that the request with this branch could not be delivered.
    pub(crate) fn fail_branch(&mut self, branch: Branch) {
        if let Some((stateful, mut tools)) = self.stateful() {
            stateful.fail_branch(branch, &mut tools);
        }
    }

    /// The active transactions in the slots from here on: a page of at most this many.
    pub(crate) fn listed(&mut self, from: u32, most: usize) -> Page {
        let stateful = self.stateful.as_deref_mut();
        let page = stateful.map(|stateful| stateful.listed(from, None, most));
        page.unwrap_or_default()
    }

    /// Cancels the INVITE transactions of a call in the slots from here on: a page of at most this many.
    pub(crate) fn cancel(&mut self, from: u32, call: &CallName, most: usize) -> CancelledPage {
        let stateful = self.stateful();
        let page =
            stateful.map(|(stateful, mut tools)| stateful.cancel(from, call, most, &mut tools));
        page.unwrap_or_default()
    }

    /// A page of the numbers of all transactions. From the first page on, those that begin are noted for [`Pipeline::names_since`].
    pub(crate) fn names(&mut self, from: Option<NameSlot>) -> NamesPage {
        let stateful = self.stateful.as_deref_mut();
        let names = stateful.map(|stateful| stateful.names(from));
        names.unwrap_or_default()
    }

    /// The numbers of the transactions that have begun since the first page of [`Pipeline::names`]. No more are noted.
    pub(crate) fn names_since(&mut self) -> Vec<u64> {
        let stateful = self.stateful.as_deref_mut();
        stateful.map(Stateful::names_since).unwrap_or_default()
    }

    /// Relays all responses without a transaction from now on. Another process has the sockets, and passes on what it does not know.
    pub(crate) fn leave(&mut self) {
        if let Some(stateful) = self.stateful.as_deref_mut() {
            stateful.leave();
        }
    }

    /// Whether this is the address of a row of the operator, of a trusted peer, or of a next hop, destinations of the dispatcher included.
    pub(crate) fn knows_address(&self, ip: IpAddr) -> bool {
        self.responder.knows_address(ip) || self.shared.is_known(ip)
    }

    /// Passes on what belongs to transactions of the processes that had the sockets before; nothing without any.
    pub(crate) fn succeed(&mut self, predecessors: Vec<Predecessor>) {
        if let Some(stateful) = self.stateful.as_deref_mut() {
            stateful.succeed(predecessors);
        }
    }
}

/// The label of a transport.
pub(crate) fn wire_of(transport: Transport) -> Wire {
    match transport {
        Transport::Udp => Wire::Udp,
        Transport::Tcp => Wire::Tcp,
        Transport::Tls => Wire::Tls,
        Transport::Ws => Wire::Ws,
        Transport::Wss => Wire::Wss,
    }
}
