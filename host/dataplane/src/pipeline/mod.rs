//! The data path of one message, from received bytes to sent bytes: scan, first look, policy, verdict, reply or relay.

mod among_hosts;
mod draining;
mod fate;
mod first_look;
mod judge;
mod pings;
mod relaying;
mod reporter;
mod responder;
mod stateful;
mod strangers;
mod targets;
mod verdict;

use std::fmt::Display;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use portcullis_sip::{
    Arrival, Branch, Destination, DialogSeal, Framing, Index, Message, RequestName, Routes,
    ScanError, Transport, scan,
};

use portcullis_config::{InDialog as Mode, RelayMode};
use portcullis_metrics::{InDialog, Lost, Wire, WorkerCounters};
use portcullis_request::Request;
use portcullis_transaction::{NameSlot, Outbox};

use crate::active::{CallName, CancelledPage, Page};
use crate::link::Predecessor;
use crate::orders::NamesPage;
use crate::shared::Shared;
use judge::{Deferral, Judge};
use relaying::Relaying;
use responder::Responder;
use stateful::{Belongs, Stateful, Tools};

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
    /// The message that is being handled is not passed to another host: another one has received it, or it was deferred here.
    stays_here: bool,
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
            stays_here: false,
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
        let deferral = match arrival.connection {
            None => Deferral::InQueue,
            Some(_) => Deferral::OnConnection,
        };
        self.handle_with(deferral, bytes, framing, arrival, out)
    }

    /// The same for a datagram that another host has received.
    pub(crate) fn handle_passed(
        &mut self,
        bytes: Vec<u8>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> (Vec<u8>, Handled) {
        self.stays_here = true;
        let handled = self.handle(bytes, Framing::Datagram, arrival, out);
        self.stays_here = false;
        handled
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
        self.handle_with(Deferral::InQueue, bytes, framing, arrival, out)
    }

    fn handle_with(
        &mut self,
        deferral: Deferral,
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
                None => self.judge(request, name, out, deferral),
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
            self.lose_unpaid(datagram, to);
        }
        is_paid
    }

    /// Whether this ping along the flow of a client may be sent: it counts like an answer to the client, who may have forged the address that it has
    /// registered from. Counts the loss of one that may not, and notes it for the control side.
    pub(crate) fn may_ping(&self, ping: &[u8], to: &Destination) -> bool {
        let is_paid = self
            .responder
            .may_request(to.transport, to.addr, ping.len());
        if !is_paid {
            self.lose_unpaid(ping, to.addr);
            pings::keep_back(ping, to, &self.shared);
        }
        is_paid
    }

    #[cold]
    fn lose_unpaid(&self, datagram: &[u8], to: SocketAddr) {
        self.reporter.lose(&Loss {
            lost: Lost::AnswerLimit,
            bytes: datagram,
            transport: Transport::Udp,
            peer: to,
            detail: &"the address has not proved itself: see `unproved-bytes` in [sip]",
        });
    }

    /// Decides on a deferred request.
    pub fn decide(&mut self, request: Request, out: &mut Vec<u8>) -> Option<Destination> {
        // A copy of it may have been decided on, and a CANCEL may have come. It stays at this host, which has looked at the others when it arrived:
        // hosts that see each other differently for a moment would pass it to and fro.
        self.stays_here = true;
        let belongs = self.belongs(request.message(), &request.arrival);
        self.stays_here = false;
        let name = match belongs {
            None | Some(Belongs::Stateless | Belongs::Again) => None,
            Some(Belongs::New(name)) => Some(name),
            Some(Belongs::Handled | Belongs::Dropped(_)) => return None,
        };
        let (request, judgement) = self.judge.judge(request, Deferral::None);
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
        if !dispatcher.has_calls() || request.method() != "BYE" {
            return;
        }
        match self.shared.proxy.dialog(request.message()) {
            DialogSeal::Valid(_) => dispatcher.end_call(request.call_id_bytes()),
            DialogSeal::None | DialogSeal::Forged | DialogSeal::Expired => {}
        }
    }

    /// Calls the policies and carries out the verdict, unless the request is to be deferred, if it may.
    fn judge(
        &mut self,
        request: Request,
        name: Option<RequestName>,
        out: &mut Vec<u8>,
        deferral: Deferral,
    ) -> (Request, Handled) {
        let (request, judgement) = self.judge.judge(request, deferral);
        let handled = match judgement {
            Some(judgement) => self.carry_out(judgement, &request, name, out),
            // The buffer belongs to the socket, and is large.
            None => Handled::Waits(Box::new(request.clone())),
        };
        (request, handled)
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
