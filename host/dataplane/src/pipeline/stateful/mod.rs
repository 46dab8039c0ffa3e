//! Relays requests in transactions (RFC 3261 §16): connects `host/transaction` with policies, routes, and the sockets of the worker.

mod listing;
mod shares;

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_config::{Config, Trying};
use portcullis_metrics::{
    AttemptResult, FinalClass, Retransmission, TenantCounters, WorkerCounters,
};
use portcullis_policy::{
    FailedAttempts, ForwardTarget, NextStep, Place, Rejection, TriedTarget, Verdict,
};
use portcullis_records::calls::{Call, Happened};
use portcullis_request::Request;
use portcullis_sip::{
    Arrival, Branch, Destination, Framing, HeaderName, Index, Limits, Message, NameAddr, Proxy,
    RelayError, RequestName, StartLine, Transaction, scan,
};
use portcullis_transaction::{
    Attempt, BeginError, Cause, End, Event, Failure, Id, MOST_TARGETS, Outbox, Plan, Receipt, Step,
    Time, Transactions,
};

use tracing::debug;

use super::judge::{AskedStep, Judge, Judgement, Outcome};
use super::relaying::Relaying;
use super::responder::{NoRoom, Responder};
use super::targets::{Times, codes, planned};
use crate::link::{Passing, Predecessor};
use shares::{Held, Shares};

/// The transactions of one worker.
pub(super) struct Stateful {
    pub(super) transactions: Transactions<u8>,
    /// What the requests of transactions need in order to be written for a target, by the slot of the transaction.
    #[expect(
        clippy::vec_box,
        reason = "a list that grows moves only pointers, and their memory is used again"
    )]
    relays: Vec<Box<Option<Relay>>>,
    /// Messages to send that were taken from the transactions.
    pub(super) sends: Outbox,
    /// The time that [`Time`] counts from.
    pub(super) start: Instant,
    /// Until when responses without a transaction are relayed.
    adopts_until: Time,
    /// The process that had the sockets before, as long as it has transactions.
    pub(super) predecessor: Option<Predecessor>,
    /// The numbers of new transactions, while they are noted.
    noted: Option<Vec<u64>>,
    times: Times,
    /// What each tenant holds of the table.
    shares: Shares,
    /// The counters of the operator, and the number of the worker's element in those of tenants.
    operator: Arc<[TenantCounters]>,
    number: usize,
    /// For requests while they are written.
    pub(super) draft: Vec<u8>,
    pub(super) index: Index,
}

/// A request that is relayed in a transaction.
pub(super) struct Relay {
    pub(super) judgement: Judgement,
    /// Whether branch 0 goes where the verdict says: no target was named for it.
    is_as_decided: bool,
    /// The targets of the policy, in the order of the other branches.
    targets: Vec<ForwardTarget>,
    /// What the policy wants to have back when it is asked after a failure.
    memo: Vec<u8>,
    /// How often the policy may still be asked.
    tries_left: u8,
    /// For call records; `None` without.
    call: Option<Arc<Call>>,
    /// Bytes that count for the tenant.
    held: usize,
    /// Where the request went first, if the verdict named no place: as Route, request URI and the default next hop led.
    first: Option<Destination>,
}

/// Where a request goes.
enum Way<'r> {
    /// As the verdict says.
    Decided,
    /// To a target of the policy.
    Target(&'r ForwardTarget),
}

/// What the transactions make of a message.
pub(super) enum Belongs {
    /// A transaction has handled it.
    Handled,
    /// A new request, which becomes a transaction with this name if it is relayed.
    New(RequestName),
    /// It is relayed without a transaction.
    Stateless,
    /// It is dropped, for this cause.
    Dropped(&'static str),
}

/// Longer than a process lives that has given its sockets away.
const LEAVING: Duration = Duration::from_secs(86_400);

/// Timers handled before the clock is read again.
pub(super) const EXPIRE_AT_ONCE: usize = 16;

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
        Self {
            transactions: Transactions::new(Arc::clone(proxy), settings),
            relays: Vec::new(),
            sends: Outbox::default(),
            start: Instant::now(),
            adopts_until: Time::ZERO + limits.adopt,
            predecessor: None,
            noted: None,
            times: Times::of(&config.relay),
            shares: Shares::new(
                limits,
                Held {
                    transactions: limits.active,
                    bytes: most_bytes,
                },
            ),
            operator,
            number,
            draft: Vec::new(),
            index: Index::default(),
        }
    }

    pub(super) fn now(&self) -> Time {
        let elapsed = self.start.elapsed().as_millis();
        Time::from_millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Relays responses without a transaction for as long as a request that is relayed without one may have any.
    pub(super) fn adopt(&mut self) {
        self.adopts_until = self.adopts_until.max(self.now() + self.times.ring);
    }

    /// As [`Stateful::adopt`], until the process ends.
    pub(super) fn leave(&mut self) {
        self.adopts_until = self.now() + LEAVING;
    }

    /// See `Pipeline::names`.
    pub(super) fn names(&mut self) -> Vec<u64> {
        self.noted = Some(Vec::new());
        // A successor passes on to this process, and this one to its predecessor.
        let inherited = self.predecessor.iter().flat_map(Predecessor::names);
        let own = self.transactions.names().map(Transaction::number);
        own.chain(inherited).collect()
    }

    /// See `Pipeline::names_since`.
    pub(super) fn names_since(&mut self) -> Vec<u64> {
        self.noted.take().unwrap_or_default()
    }

    /// Passes a message to the transactions: a response, or a request that has passed the first look.
    pub(super) fn receive(
        &mut self,
        message: Message<'_>,
        arrival: &Arrival,
        relaying: &Relaying<'_>,
    ) -> Belongs {
        let now = self.now();
        let counters = &relaying.counters().transactions;
        let receipt = self.transactions.receive(now, message, arrival);
        if self.predecessor.is_some() && self.pass_on(receipt, message, arrival, relaying) {
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
            Receipt::Stray if now < self.adopts_until => {
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
        }
    }

    /// Passes on a message without a transaction here, if it may belong to one of the process that had the sockets before. Returns whether
    /// that process has it now.
    #[cold]
    fn pass_on(
        &mut self,
        receipt: Receipt,
        message: Message<'_>,
        arrival: &Arrival,
        relaying: &Relaying<'_>,
    ) -> bool {
        let Some(predecessor) = &self.predecessor else {
            return false;
        };
        let is_request = matches!(message.start_line(), StartLine::Request { .. });
        let passing = match receipt {
            // The connections of that process lead to it.
            Receipt::New(_) | Receipt::Stateless if arrival.connection.is_some() => {
                Passing::Foreign
            }
            Receipt::New(name) => predecessor.pass_request(name, message, arrival),
            Receipt::Stateless if is_request => match relaying.proxy().name_of(message, arrival) {
                Some(name) => predecessor.pass_request(name, message, arrival),
                None => Passing::Foreign,
            },
            Receipt::Stray => predecessor.pass(message, arrival),
            Receipt::Stateless
            | Receipt::Handled
            | Receipt::Conflict
            | Receipt::Changed
            | Receipt::Unreadable => Passing::Foreign,
        };
        self.passed(passing, relaying.counters())
    }

    /// Counts what was passed on, and forgets a process that has ended. Returns whether that process has the message now.
    fn passed(&mut self, passing: Passing, counters: &WorkerCounters) -> bool {
        let counters = &counters.transactions;
        match passing {
            Passing::Done => counters.passed.inc(),
            Passing::Foreign => {}
            Passing::Full => counters.not_passed.inc(),
            Passing::Ended => self.predecessor = None,
        }
        passing == Passing::Done
    }

    /// Notes that the request with this branch could not be delivered.
    pub(super) fn fail_branch(&mut self, branch: Branch, counters: &WorkerCounters) {
        let now = self.now();
        let is_ours = self
            .transactions
            .fail_branch(now, branch, Failure::Unreachable);
        if !is_ours && let Some(predecessor) = &self.predecessor {
            let passing = predecessor.pass_undelivered(branch);
            self.passed(passing, counters);
        }
    }

    /// The relayed request of a transaction.
    pub(super) fn relay(&self, id: Id) -> Option<&Relay> {
        (**self.relays.get(id.slot() as usize)?).as_ref()
    }

    /// Makes a transaction of a request, with the targets of its decision. `written` is the destination of the request in the draft, if it has
    /// been written for the only target.
    pub(super) fn begin(
        &mut self,
        request: Begun<'_>,
        judgement: Judgement,
        written: Option<Destination>,
        tools: &mut Tools<'_>,
    ) -> Result<(), (NotBegun, Box<Judgement>)> {
        let now = self.now();
        let Begun {
            name,
            message,
            arrival,
            back,
            is_in_dialog,
        } = request;
        if tools.judge.has_tenants()
            && let Err(no_room) = self.has_part(&judgement)
        {
            return Err((NotBegun::NoRoom(no_room), Box::new(judgement)));
        }
        let transactions = &mut self.transactions;
        let id = match transactions.begin(now, name, message, arrival, back, is_in_dialog) {
            Ok(id) => id,
            Err(error) => return Err((error.into(), Box::new(judgement))),
        };
        if let Some(noted) = &mut self.noted {
            noted.push(name.transaction.number());
        }
        let counters = tools.relaying.counters();
        counters.transactions.begun.inc();
        let (mut relay, plan) = self.planned(judgement, message, tools);
        if tools.relaying.calls().is_some() {
            relay.call = Some(Arc::new(call_of(&relay.judgement, message, arrival)));
        }
        let slot = id.slot() as usize;
        if self.relays.len() <= slot {
            self.relays.resize_with(slot + 1, Box::default);
        }
        self.transactions.charge(id, relay.bytes());
        relay.held = relay.to_hold(message.bytes().len(), relay.copied(&relay.targets));
        let tenant = counters_of(&relay.judgement, &self.operator, self.number);
        self.shares.take(tenant, relay.held);
        relay.first = written.filter(|_| relay.tried(0).is_none());
        *self.relays[slot] = Some(relay);
        let planned = self.transactions.plan(now, id, plan);
        debug_assert_eq!(planned, Ok(()), "a new transaction waits for its plan");
        self.settle(tools, written);
        Ok(())
    }

    /// Whether the tenant of a request may have a further transaction.
    fn has_part(&self, judgement: &Judgement) -> Result<(), NoRoom> {
        let tenant = counters_of(judgement, &self.operator, self.number);
        self.shares.admits(tenant, self.transactions.usage())
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
        let relay = Relay {
            judgement,
            is_as_decided: targets.is_empty(),
            targets,
            memo,
            tries_left: tries,
            call: None,
            held: 0,
            first: None,
        };
        (relay, plan)
    }

    /// Handles timers that are due, at most this many. Returns whether all were.
    pub(super) fn expire(&mut self, at_most: usize, tools: &mut Tools<'_>) -> bool {
        let is_done = self.transactions.expire(self.now(), at_most);
        self.settle(tools, None);
        is_done
    }

    /// Handles the events of the transactions. `written` is the request for the first target of a new transaction, if it has been written.
    pub(super) fn settle(&mut self, tools: &mut Tools<'_>, mut written: Option<Destination>) {
        let counters = tools.relaying.counters();
        while let Some(event) = self.transactions.poll_event() {
            match event {
                Event::Start { id, branch: 0, .. } if written.is_some() => {
                    if let Some(to) = written.take() {
                        let (now, draft) = (self.now(), mem::take(&mut self.draft));
                        self.transactions.forward(now, id, 0, &draft, to);
                        self.draft = draft;
                    }
                }
                Event::Start { id, branch, .. } => {
                    self.start_target(id, branch, &tools.relaying);
                }
                Event::Ask { id } => self.ask(id, tools),
                Event::Outcome {
                    id,
                    target,
                    attempt,
                } => {
                    self.record(id, &tools.relaying, |relay, call| {
                        relay.attempted(target, &attempt, call)
                    });
                    let result = result_of(&attempt);
                    counters.transactions.attempts.inc(result);
                }
                Event::Ended { id, end } => {
                    self.record(id, &tools.relaying, |_, _| ended(&end));
                    if let Some(relay) = self.relays[id.slot() as usize].take() {
                        let tenant = counters_of(&relay.judgement, &self.operator, self.number);
                        self.shares.give_back(tenant, relay.held);
                    }
                    count_end(&end, counters);
                }
            }
        }
        if self.sends.is_empty() {
            self.transactions.take_sends(&mut self.sends);
        }
        let usage = self.transactions.usage();
        let levels = &counters.transactions;
        levels.active.set(usage.active as u64);
        levels.lingering.set(usage.absorbers as u64);
        levels.stored_bytes.set(usage.bytes as u64);
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
        if let Some(relay) = self.relay(id)
            && let Some(call) = &relay.call
        {
            calls.write(call, happened(relay, call));
        }
    }

    /// Writes the request for a target whose turn has come.
    fn start_target(&mut self, id: Id, branch: u8, relaying: &Relaying<'_>) {
        let now = self.now();
        let mut draft = mem::take(&mut self.draft);
        let mut index = mem::take(&mut self.index);
        let relay = self.relay(id);
        let way = relay.and_then(|relay| relay.way(branch));
        let job = self.transactions.job(id, branch);
        let written = match (relay.zip(way), job) {
            (Some((relay, way)), Some(job)) => {
                let scanned = scan(job.request, Framing::Datagram, &STORED, &mut index);
                debug_assert!(scanned.is_ok(), "a stored request was scanned before");
                let message = Message::new(job.request, &index);
                let target = match way {
                    Way::Decided => None,
                    Way::Target(target) => Some(target),
                };
                let branch = Some((job.branch, job.breadth));
                let judgement = &relay.judgement;
                let written =
                    relaying.write(message, job.arrival, judgement, target, branch, &mut draft);
                let is_again =
                    |to: &Destination| target.is_some_and(|target| relay.was_at(target, to));
                let written = written.map(|to| (to, is_again(&to)));
                written.map_err(|error| {
                    relaying.count_refused(&error, message, job.arrival, judgement);
                    let failure = failure_of(&error);
                    (error, failure)
                })
            }
            // The transaction has ended.
            _ => {
                (self.draft, self.index) = (draft, index);
                return;
            }
        };
        match written {
            Ok((to, false)) => {
                self.transactions.forward(now, id, branch, &draft, to);
            }
            Ok((to, true)) => {
                let error = format!("the request has been at {to}", to = to.addr);
                debug!(event = "target_refused", branch, %error, "request not relayed to a target of its policy");
                let failure = self.failure_again(id);
                self.transactions.fail(now, id, branch, failure);
            }
            Err((error, failure)) => {
                debug!(event = "target_refused", branch, %error, "request not relayed to a target of its policy");
                self.transactions.fail(now, id, branch, failure);
            }
        }
        self.draft = draft;
        self.index = index;
    }

    /// The failure of a target where the request has been first: the sender must get what it would get without this target. An answer from
    /// there takes precedence over any failure of this host, but no answer is not remembered. As after [`RelayError::Loop`], other targets
    /// may follow.
    fn failure_again(&self, id: Id) -> Failure {
        let first = self.transactions.attempts(id).next();
        match first {
            Some((_, attempt)) if attempt.code == 408 => Failure::Refused(408),
            Some(_) | None => Failure::Refused(503),
        }
    }

    /// Asks the policy what happens after all targets have failed.
    fn ask(&mut self, id: Id, tools: &mut Tools<'_>) {
        let now = self.now();
        let step = match self.asked(id, tools) {
            None => Step::Best,
            Some(asked) => match asked.step {
                NextStep::Best => Step::Best,
                NextStep::Answer(rejection) => {
                    return self.answer(now, id, rejection, tools);
                }
                NextStep::Again => self.again(id, asked, tools),
            },
        };
        if self.transactions.step(now, id, step).is_err() {
            // Too many targets. A transaction that has ended meanwhile ignores this.
            let _ended = self.transactions.step(now, id, Step::Best);
        }
    }

    /// The step of the policy; `None` for the best response.
    fn asked(&mut self, id: Id, tools: &mut Tools<'_>) -> Option<AskedStep> {
        let relay = (**self.relays.get_mut(id.slot() as usize)?).as_mut()?;
        relay.tries_left = relay.tries_left.saturating_sub(1);
        let job = self.transactions.job(id, 0)?;
        let mut index = Index::default();
        scan(job.request, Framing::Datagram, &STORED, &mut index).ok()?;
        let request = Request {
            bytes: job.request.to_vec(),
            index,
            arrival: *job.arrival,
        };
        let failed = relay.failed(&self.transactions, id, &request);
        let judgement = &relay.judgement;
        let asker = judgement.asker.as_deref()?;
        tools.judge.after_failure(asker, judgement, request, failed)
    }

    /// The further targets of a policy.
    fn again(&mut self, id: Id, asked: AskedStep, tools: &Tools<'_>) -> Step<u8> {
        let mut forwarding = asked.forwarding.unwrap_or_default();
        let relay = self.relays.get_mut(id.slot() as usize);
        let relay = relay.and_then(|relay| (**relay).as_mut());
        let (Some(relay), Some(job)) = (relay, self.transactions.job(id, 0)) else {
            return Step::Best;
        };
        // The policy may have kept, replaced or cleared it.
        relay.memo = mem::take(&mut forwarding.memo);
        relay.judgement.edits.append(asked.edits);
        let retry_on = forwarding.retry_on.as_deref().map(codes);
        let scanned = scan(job.request, Framing::Datagram, &STORED, &mut self.index);
        debug_assert!(scanned.is_ok(), "a stored request was scanned before");
        let targets = tools
            .relaying
            .in_order(forwarding, Message::new(job.request, &self.index));
        let first = u8::try_from(relay.named()).unwrap_or(u8::MAX);
        let again = planned(&targets, first, self.times);
        let copied = relay.copied(&targets);
        if usize::from(first) + targets.len() <= MOST_TARGETS {
            relay.targets.extend(targets);
        }
        let held = relay.to_hold(job.request.len(), copied);
        let tenant = counters_of(&relay.judgement, &self.operator, self.number);
        self.shares.change(tenant, relay.held, held);
        relay.held = held;
        self.transactions.charge(id, relay.bytes());
        Step::Again {
            targets: again,
            retry_on,
        }
    }

    fn answer(&mut self, now: Time, id: Id, rejection: Rejection, tools: &Tools<'_>) {
        let relaying = &tools.relaying;
        let is_too_large = self.transactions.job(id, 0).is_some_and(|job| {
            let scanned = scan(job.request, Framing::Datagram, &STORED, &mut self.index);
            debug_assert!(scanned.is_ok(), "a stored request was scanned before");
            let message = Message::new(job.request, &self.index);
            let responder = tools.responder;
            responder.is_rejection_too_large(&rejection, message, job.arrival)
        });
        let Rejection {
            code,
            reason,
            mut headers,
        } = rejection;
        if is_too_large {
            relaying.counters().shortened_answers.inc();
            headers.clear();
        }
        if let Some(relay) = self.relay(id)
            && let Some((name, id)) = relaying.shown_id(&relay.judgement)
        {
            headers.push((name.to_owned(), id));
        }
        self.transactions.answer(now, id, code, &reason, &headers);
    }
}

impl Relay {
    /// Where the branch with this number goes.
    fn way(&self, branch: u8) -> Option<Way<'_>> {
        let number = usize::from(branch);
        match number.checked_sub(usize::from(self.is_as_decided)) {
            None => Some(Way::Decided),
            Some(number) => self.targets.get(number).map(Way::Target),
        }
    }

    /// Number of all branches that were named.
    fn named(&self) -> usize {
        usize::from(self.is_as_decided) + self.targets.len()
    }

    /// Copies of the request that exist at once if it goes to these targets, which are sorted by rank; without any, as decided.
    fn copied(&self, targets: &[ForwardTarget]) -> usize {
        let at_once = targets.chunk_by(|one, next| one.rank == next.rank);
        let most = at_once.map(<[_]>::len).max().unwrap_or(1);
        let parallel = self.judgement.forwarding_limits().parallel;
        most.min(usize::from(parallel).max(1))
    }

    /// Bytes that count for the tenant: of what the policy said, of the request, and of so many copies.
    fn to_hold(&self, request: usize, copies: usize) -> usize {
        self.bytes() + request * (1 + copies)
    }

    /// Memory beyond the value itself, in bytes.
    fn bytes(&self) -> usize {
        let targets = self.targets.iter().map(ForwardTarget::bytes);
        self.judgement.edits.bytes() + targets.sum::<usize>() + self.memo.len()
    }

    /// Whether this target is where the request has been first, unnamed, as the same request: it would be tried again.
    fn was_at(&self, target: &ForwardTarget, to: &Destination) -> bool {
        let is_same =
            |first: &Destination| first.transport == to.transport && first.addr == to.addr;
        let is_unchanged = target.request_uri.is_none() && target.headers.is_empty();
        is_unchanged && self.first.as_ref().is_some_and(is_same)
    }

    /// What the policy learns about the targets that have failed.
    fn failed(&self, transactions: &Transactions<u8>, id: Id, request: &Request) -> FailedAttempts {
        let attempts = transactions.attempts(id).map(|(&number, attempt)| {
            let place = match self.way(number) {
                Some(Way::Target(target)) => target.place.to_string(),
                Some(Way::Decided) | None => self.decided_place(request),
            };
            let milliseconds = u32::try_from(attempt.took.as_millis()).unwrap_or(u32::MAX);
            portcullis_policy::Attempt {
                place,
                status: attempt.code,
                cause: cause_of(attempt.cause),
                milliseconds,
            }
        });
        let attempts: Vec<_> = attempts.collect();
        let tried = transactions.attempts(id);
        let tried = tried.filter_map(|(&number, _)| self.tried(number));
        let best = transactions.best(id);
        let is_best = |attempt: &portcullis_policy::Attempt| {
            let is_answer = attempt.cause == portcullis_policy::Cause::Answered;
            best.is_some_and(|(code, response)| {
                attempt.status == code && is_answer == response.is_some()
            })
        };
        FailedAttempts {
            best: attempts.iter().rposition(is_best),
            best_response: best.and_then(|(_, response)| response.map(<[u8]>::to_vec)),
            tries_left: self.tries_left,
            memo: self.memo.clone(),
            tried: tried.collect(),
            named: self.named(),
            named_bytes: self.targets.iter().map(ForwardTarget::text_bytes).sum(),
            attempts,
        }
    }

    /// The target with this number. `None` if the request went where its own header fields led.
    fn tried(&self, number: u8) -> Option<TriedTarget> {
        if let Way::Target(target) = self.way(number)? {
            return Some(TriedTarget {
                place: target.place.clone(),
                request_uri: target.request_uri.clone(),
            });
        }
        let Outcome::Verdict(Verdict::Relay(Some(name))) = &self.judgement.outcome else {
            return None;
        };
        Some(TriedTarget {
            place: Place::NextHop(name.clone()),
            request_uri: None,
        })
    }

    /// The result of a target, for its call record.
    fn attempted(&self, number: u8, attempt: &Attempt, call: &Call) -> Happened {
        let target = match self.way(number) {
            Some(Way::Target(target)) => target.place.to_string(),
            Some(Way::Decided) | None => match &self.judgement.outcome {
                Outcome::Verdict(Verdict::Relay(Some(name))) => name.clone(),
                Outcome::Verdict(_)
                | Outcome::Default
                | Outcome::Failed(_)
                | Outcome::Within(_) => call.uri.clone(),
            },
        };
        Happened::Attempt {
            target,
            status: attempt.code,
            cause: cause_of(attempt.cause).as_str(),
            ms: millis(attempt.took),
        }
    }

    /// The name of the next hop in the verdict, or the request URI.
    fn decided_place(&self, request: &Request) -> String {
        match &self.judgement.outcome {
            Outcome::Verdict(Verdict::Relay(Some(name))) => name.clone(),
            Outcome::Verdict(_) | Outcome::Default | Outcome::Failed(_) | Outcome::Within(_) => {
                String::from_utf8_lossy(request.request_uri()).into_owned()
            }
        }
    }
}

/// The counters of a worker for the tenant of a request.
pub(super) fn counters_of<'c>(
    judgement: &'c Judgement,
    operator: &'c [TenantCounters],
    number: usize,
) -> &'c TenantCounters {
    match &judgement.tenant {
        Some(tenant) => &tenant.counters[number],
        None => &operator[number],
    }
}

/// A request that becomes a transaction.
pub(super) struct Begun<'r> {
    pub(super) name: RequestName,
    pub(super) message: Message<'r>,
    pub(super) arrival: &'r Arrival,
    /// Where responses go.
    pub(super) back: Destination,
    pub(super) is_in_dialog: bool,
}

/// Why a request has not become a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotBegun {
    /// There is one with this name.
    Exists,
    /// There is no room for another one.
    NoRoom(NoRoom),
}

impl From<BeginError> for NotBegun {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::Full => Self::NoRoom(NoRoom::Table),
            BeginError::Exists => Self::Exists,
        }
    }
}

/// What transactions need of the pipeline.
pub(super) struct Tools<'p> {
    pub(super) relaying: Relaying<'p>,
    pub(super) responder: &'p Responder,
    pub(super) judge: &'p mut Judge,
}

/// Without limits: the header fields of this host may have taken a stored request beyond the limits of received messages.
pub(super) const STORED: Limits = Limits {
    message_bytes: usize::MAX,
    header_lines: usize::MAX,
    header_bytes: usize::MAX,
    start_line_bytes: usize::MAX,
};

/// What the call records of a request have in common.
#[cold]
fn call_of(judgement: &Judgement, message: Message<'_>, arrival: &Arrival) -> Call {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (method, uri) = match message.start_line() {
        StartLine::Request { method, uri, .. } => (method, uri),
        StartLine::Response { .. } => (&b""[..], &b""[..]),
    };
    let party = |name| {
        let field = message.header(name);
        let party = field.and_then(|field| NameAddr::parse(field.value).ok());
        party.map(|party| text(party.uri)).unwrap_or_default()
    };
    let call_id = message.header(HeaderName::CallId);
    let tenant = judgement.tenant.as_ref();
    Call {
        id: judgement.id,
        tenant: tenant.map_or_else(|| "default".into(), |tenant| Arc::clone(&tenant.name)),
        source: arrival.source,
        transport: arrival.transport,
        method: text(method),
        uri: text(uri),
        from: party(HeaderName::From),
        to: party(HeaderName::To),
        call_id: call_id.map_or_else(String::new, |field| text(field.value)),
    }
}

/// The end of a transaction, for its call record.
fn ended(end: &End) -> Happened {
    Happened::Transaction {
        status: end.code,
        attempts: end.attempts,
        cancelled: end.cancelled,
        first_response_ms: end.first_response.map(millis),
        final_response_ms: end.final_response.map(millis),
        ms: millis(end.took),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What an error means for a target. Where another target may do better, it counts as one that cannot be reached.
fn failure_of(error: &RelayError) -> Failure {
    match error {
        RelayError::Unresolved(_) => Failure::Unresolved,
        RelayError::TooManyHops
        | RelayError::BadRoute(_)
        | RelayError::BadUri(_)
        | RelayError::Unrelayable => Failure::Refused(error.code()),
        RelayError::UnknownNextHop(_)
        | RelayError::NotPermitted(_)
        | RelayError::NowhereToGo(_)
        | RelayError::Loop(_)
        | RelayError::UnsupportedTransport(_)
        | RelayError::UnsupportedScheme(_)
        | RelayError::TooLarge(_)
        | RelayError::NoSocket { .. } => Failure::Unreachable,
    }
}

fn is_to_cancel(response: Message<'_>) -> bool {
    let is_response = response.header(HeaderName::CSeq).is_some();
    is_response && response.cseq().is_some_and(|cseq| cseq.method == b"CANCEL")
}

fn cause_of(cause: Cause) -> portcullis_policy::Cause {
    match cause {
        Cause::Answered => portcullis_policy::Cause::Answered,
        Cause::NoAnswer => portcullis_policy::Cause::NoAnswer,
        Cause::RangOut => portcullis_policy::Cause::RangOut,
        Cause::Cancelled => portcullis_policy::Cause::Cancelled,
        Cause::Unreachable => portcullis_policy::Cause::Unreachable,
        Cause::Unresolved => portcullis_policy::Cause::Unresolved,
        Cause::Refused => portcullis_policy::Cause::Refused,
    }
}

fn result_of(attempt: &Attempt) -> AttemptResult {
    match attempt.cause {
        Cause::Answered if attempt.code < 300 => AttemptResult::Success,
        Cause::Answered => AttemptResult::Failure,
        Cause::NoAnswer => AttemptResult::NoAnswer,
        Cause::RangOut => AttemptResult::RangOut,
        Cause::Cancelled => AttemptResult::Cancelled,
        Cause::Unreachable => AttemptResult::Unreachable,
        Cause::Unresolved => AttemptResult::Unresolved,
        Cause::Refused => AttemptResult::Refused,
    }
}

fn count_end(end: &End, counters: &WorkerCounters) {
    let counters = &counters.transactions;
    counters.ended.inc(FinalClass::of(end.code));
    counters.late_successes.add(end.late_successes.into());
    if let Some(took) = end.first_response {
        counters.first_responses.record(took);
    }
    if let Some(took) = end.final_response {
        counters.final_responses.record(took);
    }
    if end.cancelled {
        counters.cancelled.inc();
    }
    if end.unconfirmed {
        counters.unconfirmed.inc();
    }
}
