//! Relays requests in transactions (RFC 3261 §16): connects `host/transaction` with policies, routes, and the sockets of the worker.

mod asking;
mod attempts;
mod call_records;
mod listing;
mod members;
mod metrics;
mod registrations;
mod relay;
mod relays;
mod sends;
mod shares;
mod stored;
mod succession;

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_config::{Config, Trying};
use portcullis_metrics::{Retransmission, TenantCounters, WorkerCounters};
use portcullis_records::calls::{Call, Happened};
use portcullis_sip::{
    Arrival, Branch, Destination, Dialog, Forwarded, Framing, HeaderName, Index, Limits, Message,
    Proxy, RelayError, RequestName, StartLine, Transaction, scan,
};
use portcullis_transaction::{
    Attempt, BeginError, Cause, Event, Failure, Id, NameSlot, Outbox, Plan, Receipt, Time,
    Transactions, What, max_breadth,
};

use super::judge::{Judge, Judged, Judgement};
use super::relaying::Relaying;
use super::reporter::Reporter;
use super::responder::{NoRoom, Responder};
use super::targets::{Times, codes, planned};
use crate::active::{CallName, CancelledPage, Page};
use crate::flow_pings::FlowPings;
use crate::link::Predecessor;
use crate::orders::NamesPage;
use call_records::{attempted, call_of, ended};
use listing::Listing;
use registrations::Registrations;
use relay::Relay;
use relays::Relays;
use sends::Sends;
use shares::{Held, Shares};
use succession::Succession;

/// The transactions of one worker.
pub(super) struct Stateful {
    transactions: Transactions<u8>,
    relays: Relays,
    /// What other processes have of transactions.
    succession: Succession,
    /// Messages to send that were taken from the transactions.
    sends: Outbox,
    /// Registrations that were accepted, until the responses are sent.
    registrations: Registrations,
    /// The time that [`Time`] counts from.
    start: Instant,
    times: Times,
    /// The number of the worker.
    number: usize,
    /// For requests while they are written.
    draft: Vec<u8>,
    /// For the addresses that were tried before.
    tried: Vec<Destination>,
    /// The seconds in Retry-After of the 503 that is being handled.
    retry_after: Option<u32>,
    index: Index,
}

/// What the transactions make of a message.
pub(super) enum Belongs {
    /// A transaction has handled it.
    Handled,
    /// A new request, which becomes a transaction with this name if it is relayed.
    New(RequestName),
    /// It is relayed without a transaction.
    Stateless,
    /// The same, and it is not the first 2xx response to its INVITE.
    Again,
    /// It is dropped, for this cause.
    Dropped(&'static str),
}

/// A request that becomes a transaction.
pub(super) struct Begun<'r> {
    pub(super) name: RequestName,
    pub(super) message: Message<'r>,
    pub(super) arrival: &'r Arrival,
    /// Where responses go.
    pub(super) back: Destination,
    /// The admitted dialog to which it belongs.
    pub(super) dialog: Option<Dialog>,
}

/// Why a request has not become a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotBegun {
    /// There is one with this name.
    Exists,
    /// There is no room for another one.
    NoRoom(NoRoom),
}

/// What transactions need of the pipeline.
pub(super) struct Tools<'p> {
    pub(super) relaying: Relaying<'p>,
    pub(super) responder: &'p Responder,
    pub(super) judge: &'p mut Judge,
}

/// Timers handled before the clock is read again.
const EXPIRE_AT_ONCE: usize = 16;

/// Slots that one page of names looks at: the worker handles messages between two pages.
const SLOTS_OF_NAMES: u32 = 4_096;

/// Time slice for timers before sockets get theirs: policies are asked in it.
const EXPIRE_TIME: Duration = Duration::from_micros(500);

impl Stateful {
    /// `operator` has the counters of the operator, with an element for each worker; `number` is that of this worker.
    pub(super) fn new(
        proxy: &Arc<Proxy>,
        config: &Config,
        operator: Arc<[TenantCounters]>,
        number: usize,
    ) -> Self {
        let limits = &config.transactions;
        let workers = operator.len().max(1);
        let most_bytes = usize::try_from(limits.memory).unwrap_or(usize::MAX) / workers;
        let settings = portcullis_transaction::Config {
            trying: match config.relay.trying {
                Trying::Now => portcullis_transaction::Trying::Now,
                Trying::After200Ms => {
                    portcullis_transaction::Trying::After(Duration::from_millis(200))
                }
                Trying::Never => portcullis_transaction::Trying::Never,
            },
            most: limits.active,
            absorbers: limits.lingering,
            bytes: most_bytes,
            ..Default::default()
        };
        let most = Held {
            transactions: limits.active,
            bytes: most_bytes,
        };
        Self {
            transactions: Transactions::new(Arc::clone(proxy), settings),
            relays: Relays::new(Shares::new(limits, most), operator, number),
            succession: Succession::new(limits.adopt),
            sends: Outbox::default(),
            registrations: Registrations::default(),
            start: Instant::now(),
            times: Times::of(&config.relay),
            number,
            draft: Vec::new(),
            tried: Vec::new(),
            retry_after: None,
            index: Index::default(),
        }
    }

    /// Passes a message to the transactions: a response, or a request that has passed the first look. With `stays_here`, it is not passed
    /// to another host.
    pub(super) fn receive(
        &mut self,
        message: Message<'_>,
        arrival: &Arrival,
        stays_here: bool,
        tools: &mut Tools<'_>,
    ) -> Belongs {
        let belongs = self.received(message, arrival, stays_here, &tools.relaying);
        self.retry_after = members::retry_after(message);
        self.settle(tools, None);
        self.retry_after = None;
        belongs
    }

    fn received(
        &mut self,
        message: Message<'_>,
        arrival: &Arrival,
        stays_here: bool,
        relaying: &Relaying<'_>,
    ) -> Belongs {
        let now = self.now();
        let counters = &relaying.counters().transactions;
        let receipt = self.transactions.receive(now, message, arrival);
        let others = relaying.among_hosts().filter(|_| !stays_here);
        if let Some(others) = others
            && others.pass_answer(receipt, message, arrival, &mut self.draft)
        {
            return Belongs::Handled;
        }
        if self.succession.has_predecessor() {
            let (proxy, counters) = (relaying.proxy(), relaying.counters());
            let succession = &mut self.succession;
            if succession.pass_on(receipt, message, arrival, proxy, counters) {
                return Belongs::Handled;
            }
        }
        if let Some(others) = others
            && others.pass_request(receipt, message, arrival, &mut self.draft)
        {
            return Belongs::Handled;
        }
        match receipt {
            Receipt::New(name) => Belongs::New(name),
            Receipt::Handled => {
                if let StartLine::Request { method, .. } = message.start_line()
                    && !matches!(method, b"ACK" | b"CANCEL")
                {
                    let kind = Retransmission::RequestReceived;
                    counters.retransmissions.inc(kind);
                }
                Belongs::Handled
            }
            // The responses to a CANCEL that was relayed without a transaction.
            Receipt::Stray if is_to_cancel(message) => Belongs::Stateless,
            Receipt::Stray if self.succession.adopts(now) => {
                counters.adopted.inc();
                Belongs::Stateless
            }
            Receipt::Stray => {
                counters.strays.inc();
                Belongs::Dropped("stray_response")
            }
            Receipt::Conflict => {
                counters.conflicts.inc();
                Belongs::Dropped("transaction_of_another_sender")
            }
            Receipt::Changed => {
                let kind = Retransmission::RequestChanged;
                counters.retransmissions.inc(kind);
                Belongs::Dropped("changed_retransmission")
            }
            // The first look finds the cause.
            Receipt::Stateless | Receipt::Unreadable => Belongs::Stateless,
            Receipt::Again => Belongs::Again,
        }
    }

    /// Where a response is relayed that the transactions have just handled.
    pub(super) fn relayed_response(&self) -> Option<Destination> {
        let mut sends = self.sends.iter();
        let response = sends.find(|sent| sent.what == What::Response);
        response.map(|sent| sent.to)
    }

    /// Writes a request before it has a transaction, for the only target: one that cannot be relayed is answered without.
    pub(super) fn write(
        &mut self,
        name: RequestName,
        judged: Judged<'_>,
        relaying: &Relaying<'_>,
    ) -> Result<Forwarded, RelayError> {
        let breadth = max_breadth(judged.message);
        let branch = Some((Branch::from(name.transaction), breadth));
        relaying.write(judged, None, branch, &[], &mut self.draft)
    }

    /// Makes a transaction of a request, with the targets of its decision. `written` is the destination of the request, if it
    /// has been written ([`Stateful::write`]).
    pub(super) fn begin(
        &mut self,
        request: Begun<'_>,
        judgement: Judgement,
        written: Option<Forwarded>,
        tools: &mut Tools<'_>,
    ) -> Result<(), (NotBegun, Box<Judgement>)> {
        let now = self.now();
        let Begun {
            name,
            message,
            arrival,
            back,
            dialog,
        } = request;
        if tools.judge.has_tenants()
            && let Err(no_room) = self.relays.admits(&judgement, self.transactions.usage())
        {
            return Err((NotBegun::NoRoom(no_room), Box::new(judgement)));
        }
        let transactions = &mut self.transactions;
        let id = match transactions.begin(now, name, message, arrival, back, dialog.is_some()) {
            Ok(id) => id,
            Err(error) => return Err((error.into(), Box::new(judgement))),
        };
        self.succession.note_begun(name.transaction.number());
        let counters = tools.relaying.counters();
        counters.transactions.begun.inc();
        let (mut relay, plan) = self.planned(judgement, message, tools);
        if tools.relaying.calls().is_some() {
            relay.call = Some(Arc::new(call_of(&relay.judgement, message, arrival)));
        }
        let call_id = members::call_id_of_invite(message);
        let calls = tools.relaying.dispatcher().calls();
        relay.counted_by = call_id.map(|call_id| calls.key(call_id));
        relay.asked = tools.responder.strangers().asked(message, arrival);
        relay.calls_back = dialog.is_some_and(|dialog| dialog.calls_back());
        relay.registers =
            registrations::flow_of(&tools.relaying, &relay.judgement, message, arrival);
        relay.note_first(written.map(|written| written.to));
        self.transactions.charge(id, relay.bytes());
        self.relays.insert(id, relay, message.bytes().len());
        let planned = self.transactions.plan(now, id, plan);
        debug_assert_eq!(planned, Ok(()), "a new transaction waits for its plan");
        self.settle(tools, written);
        Ok(())
    }

    /// The plan that follows from a decision.
    fn planned(
        &self,
        mut judgement: Judgement,
        message: Message<'_>,
        tools: &Tools<'_>,
    ) -> (Relay, Plan<u8>) {
        let forwarding = judgement.forwarding.take().map(|boxed| *boxed);
        let mut forwarding = forwarding.unwrap_or_default();
        let memo = mem::take(&mut forwarding.memo);
        let retry_on = forwarding.retry_on.as_deref().map(codes);
        let targets = tools.relaying.in_order(forwarding, message);
        let limits = judgement.forwarding_limits();
        let tries = match judgement.asker {
            Some(_) => limits.tries,
            None => 0,
        };
        let plan = Plan {
            targets: match &targets[..] {
                [] => vec![self.times.alone()],
                targets => planned(targets, 0, self.times),
            },
            retry_on: retry_on.unwrap_or_default(),
            asks: tries,
            parallel: limits.parallel,
            setup_limit: limits.setup_limit,
        };
        (Relay::new(judgement, targets, memo, tries), plan)
    }

    /// Handles timers that are due, for about [`EXPIRE_TIME`]. Returns false if more are due.
    pub(super) fn expire(&mut self, tools: &mut Tools<'_>) -> bool {
        let begun = Instant::now();
        loop {
            let is_done = self.transactions.expire(self.now(), EXPIRE_AT_ONCE);
            self.settle(tools, None);
            if is_done || begun.elapsed() > EXPIRE_TIME {
                return is_done;
            }
        }
    }

    /// When the next timer is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadline = self.transactions.next_deadline()?;
        Some(self.start + Duration::from_millis(deadline.as_millis()))
    }

    /// Handles the events of the transactions. `written` is the request for the first target of a new transaction, if it has been written.
    fn settle(&mut self, tools: &mut Tools<'_>, mut written: Option<Forwarded>) {
        let counters = tools.relaying.counters();
        while let Some(event) = self.transactions.poll_event() {
            match event {
                Event::Start { id, branch: 0, .. } if written.is_some() => {
                    if let Some(forwarded) = written.take() {
                        let draft = mem::take(&mut self.draft);
                        self.forward(id, 0, &draft, forwarded, &tools.relaying);
                        self.draft = draft;
                    }
                }
                Event::Start { id, branch, .. } => {
                    self.start_target(id, branch, &tools.relaying);
                }
                Event::Failover { from, attempt, .. } => {
                    note_result(&attempt, Some(&from), &tools.relaying);
                    counters.transactions.failovers.inc();
                }
                Event::Ask { id } => self.ask(id, tools),
                Event::Outcome {
                    id,
                    target,
                    attempt,
                    to,
                } => {
                    note_result(&attempt, to.as_ref(), &tools.relaying);
                    self.record(id, &tools.relaying, |relay, call| {
                        attempted(relay, target, &attempt, call)
                    });
                    if attempt.cause == Cause::Answered
                        && let Some(relay) = self.relays.get_mut(id)
                        && let Some(asked) = relay.asked.take()
                    {
                        tools.responder.strangers().answered(&asked, attempt.code);
                    }
                    let relay = self.relays.get(id);
                    if members::is_accepted(&attempt)
                        && let Some(flow) = relay.and_then(|relay| relay.registers)
                    {
                        self.registrations.accepted(id, flow);
                    }
                    let next_hop = relay.and_then(|relay| relay.next_hop(target));
                    metrics::count_attempt(&attempt, next_hop, counters);
                    self.note_member(id, target, &attempt, tools.relaying.dispatcher());
                }
                Event::Ended { id, end } => {
                    self.record(id, &tools.relaying, |_, _| ended(&end));
                    self.relays.remove(id);
                    metrics::count_end(&end, counters);
                }
            }
        }
        if self.sends.is_empty() {
            self.transactions.take_sends(&mut self.sends);
        }
        metrics::show_usage(self.transactions.usage(), counters);
    }

    /// Writes a call record, if there are any.
    fn record(
        &self,
        id: Id,
        relaying: &Relaying<'_>,
        happened: impl FnOnce(&Relay, &Call) -> Happened,
    ) {
        let Some(calls) = relaying.calls() else {
            return;
        };
        if let Some(relay) = self.relays.get(id)
            && let Some(call) = &relay.call
        {
            calls.write(call, happened(relay, call));
        }
    }

    /// Exchanges what transactions have to send for the memory of `into`. Returns false if there is nothing. What remains in `into` after the limit
    /// of answers may be nothing, too.
    pub(super) fn take_sends(
        &mut self,
        into: &mut Outbox,
        responder: &Responder,
        reporter: &Reporter,
        counters: &WorkerCounters,
        flow_pings: Option<&FlowPings>,
    ) -> bool {
        if self.sends.is_empty() {
            self.transactions.take_sends(&mut self.sends);
        }
        mem::swap(&mut self.sends, into);
        let is_something = !into.is_empty();
        let sends = Sends {
            transactions: &self.transactions,
            relays: &self.relays,
            responder,
            reporter,
        };
        sends.keep_back_answers(into);
        sends.note_challenges(into);
        if let Some(pings) = flow_pings {
            self.registrations.note(into, pings);
        }
        metrics::count_sends(into, counters);
        if reporter.is_watched() {
            sends.report_requests(into);
        }
        is_something
    }

    /// The branch of a request that this host sent and that could not be delivered. `None` for anything else. ACK and CANCEL have no
    /// transaction that could fail (RFC 3261 §17.1.4).
    pub(super) fn branch_of_undelivered(&mut self, bytes: &[u8], proxy: &Proxy) -> Option<Branch> {
        // An ICMP error quotes the beginning of the request.
        let _cut = scan(bytes, Framing::Datagram, &Limits::NONE, &mut self.index);
        let message = Message::new(bytes, &self.index);
        if let StartLine::Request { method, .. } = message.start_line()
            && matches!(method, b"ACK" | b"CANCEL")
        {
            return None;
        }
        proxy.branch_of_request(message)
    }

    /// Notes that the request with this branch could not be delivered.
    pub(super) fn fail_branch(&mut self, branch: Branch, tools: &mut Tools<'_>) {
        let now = self.now();
        let is_ours = self
            .transactions
            .fail_branch(now, branch, Failure::Unreachable);
        if !is_ours {
            let counters = tools.relaying.counters();
            self.succession.pass_undelivered(branch, counters);
        }
        self.settle(tools, None);
    }

    /// Whether the request of this branch was sent to where a message comes from, and not along the flow of a client.
    pub(super) fn was_sent_to(&self, branch: Branch, source: &Arrival) -> bool {
        self.transactions.was_sent_to(branch, source)
    }

    /// Relays responses without a transaction for as long as a request that is relayed without one may have any.
    pub(super) fn adopt(&mut self) {
        self.succession.adopt(self.now(), self.times.ring);
    }

    /// See `Pipeline::leave`.
    pub(super) fn leave(&mut self) {
        self.succession.leave(self.now());
    }

    /// See `Pipeline::succeed`.
    pub(super) fn succeed(&mut self, predecessors: Vec<Predecessor>) {
        self.succession.succeed(predecessors);
    }

    /// See `Pipeline::names`.
    pub(super) fn names(&mut self, from: Option<NameSlot>) -> NamesPage {
        let from = from.unwrap_or_else(|| {
            self.succession.note();
            NameSlot::FIRST
        });
        let mut names = Vec::new();
        let next = self.transactions.names(from, SLOTS_OF_NAMES, &mut names);
        let names = names.into_iter().map(Transaction::number).collect();
        NamesPage { names, next }
    }

    /// See `Pipeline::names_since`.
    pub(super) fn names_since(&mut self) -> Vec<u64> {
        self.succession.names_since()
    }

    /// The active transactions in the slots from here on, of a call only if one is named: a page of at most this many.
    pub(super) fn listed(&mut self, from: u32, only: Option<&CallName>, most: usize) -> Page {
        let listing = Listing {
            transactions: &self.transactions,
            worker: self.number,
            now: self.now(),
        };
        listing.page(from, only, most, &mut self.index)
    }

    /// Cancels the INVITE transactions of a call in the slots from here on: a page of at most this many.
    pub(super) fn cancel(
        &mut self,
        from: u32,
        call: &CallName,
        most: usize,
        tools: &mut Tools<'_>,
    ) -> CancelledPage {
        let page = self.listed(from, Some(call), most);
        let found = page.transactions.len();
        let pending = page.transactions.into_iter().filter_map(|found| {
            let pending = self.transactions.cancel(self.now(), found.id);
            self.settle(tools, None);
            pending
        });
        CancelledPage {
            found,
            pending: pending.reduce(|all, more| all + more),
            next: page.next,
        }
    }

    fn now(&self) -> Time {
        let elapsed = self.start.elapsed().as_millis();
        Time::from_millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }
}

impl From<BeginError> for NotBegun {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::Full => Self::NoRoom(NoRoom::Table),
            BeginError::Exists => Self::Exists,
        }
    }
}

/// Notes whether an address has failed. A response other than 503 shows that something serves requests there.
fn note_result(attempt: &Attempt, to: Option<&Destination>, relaying: &Relaying<'_>) {
    let Some(to) = to else {
        return;
    };
    let failed = relaying.failed_addresses();
    match attempt.cause {
        Cause::Answered if attempt.code == 503 => failed.note(to),
        Cause::NoAnswer | Cause::Unreachable => failed.note(to),
        Cause::Answered => failed.forget(to),
        Cause::RangOut | Cause::Cancelled | Cause::Unresolved | Cause::Refused => {}
    }
}

fn is_to_cancel(response: Message<'_>) -> bool {
    let is_response = response.header(HeaderName::CSeq).is_some();
    is_response && response.cseq().is_some_and(|cseq| cseq.method == b"CANCEL")
}
