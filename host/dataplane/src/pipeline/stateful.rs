//! Relays requests in transactions (RFC 3261 §16): connects `host/transaction` with policies, routes, and the sockets of the worker.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_config::{Config, Trying};
use portcullis_metrics::{AttemptResult, FinalClass, Retransmission, WorkerCounters};
use portcullis_sip::{
    Arrival, Destination, Framing, HeaderName, Index, Limits, Message, Proxy, RequestName,
    StartLine, scan,
};
use portcullis_transaction::{
    Attempt, Cause, End, Event, Failure, Id, Outbox, Receipt, Time, Transactions,
};

use super::judge::Judgement;
use super::relaying::Relaying;

/// The transactions of one worker.
pub(super) struct Stateful {
    pub(super) transactions: Transactions<u8>,
    /// What the requests of transactions need in order to be written for a target, by the slot of the transaction.
    relays: Vec<Option<Box<Relay>>>,
    /// Messages to send that were taken from the transactions.
    pub(super) sends: Outbox,
    /// The time that [`Time`] counts from.
    pub(super) start: Instant,
    /// Until when responses without a transaction are relayed.
    adopts_until: Time,
    /// Timer C.
    pub(super) ring: Duration,
    /// For requests while they are written.
    pub(super) draft: Vec<u8>,
    pub(super) index: Index,
}

/// A request that is relayed in a transaction.
struct Relay {
    judgement: Judgement,
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

/// Timers handled in one turn, before sockets get theirs.
pub(super) const EXPIRE_AT_ONCE: usize = 256;

impl Stateful {
    pub(super) fn new(proxy: &Arc<Proxy>, config: &Config, workers: usize) -> Self {
        let limits = &config.transactions;
        let most_bytes = usize::try_from(limits.memory).unwrap_or(usize::MAX);
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
            bytes: most_bytes / workers.max(1),
            ..Default::default()
        };
        Self {
            transactions: Transactions::new(Arc::clone(proxy), settings),
            relays: Vec::new(),
            sends: Outbox::default(),
            start: Instant::now(),
            adopts_until: Time::ZERO + limits.adopt,
            ring: config.relay.ring,
            draft: Vec::new(),
            index: Index::default(),
        }
    }

    pub(super) fn now(&self) -> Time {
        let elapsed = self.start.elapsed().as_millis();
        Time::from_millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Passes a message to the transactions: a response, or a request that has passed the first look.
    pub(super) fn receive(
        &mut self,
        message: Message<'_>,
        arrival: &Arrival,
        counters: &WorkerCounters,
    ) -> Belongs {
        let now = self.now();
        let counters = &counters.transactions;
        match self.transactions.receive(now, message, arrival) {
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
            // The first look finds the cause.
            Receipt::Stateless | Receipt::Unreadable => Belongs::Stateless,
        }
    }

    pub(super) fn store(&mut self, id: Id, judgement: Judgement) {
        let slot = id.slot() as usize;
        if self.relays.len() <= slot {
            self.relays.resize_with(slot + 1, || None);
        }
        self.relays[slot] = Some(Box::new(Relay { judgement }));
    }

    /// Handles the events of the transactions. `written` is the request for the first target of a new transaction, if it has been written.
    pub(super) fn settle(&mut self, relaying: &Relaying<'_>, mut written: Option<Destination>) {
        let counters = relaying.counters();
        while let Some(event) = self.transactions.poll_event() {
            match event {
                Event::Start { id, branch: 0, .. } if written.is_some() => {
                    if let Some(to) = written.take() {
                        let (now, draft) = (self.now(), mem::take(&mut self.draft));
                        self.transactions.forward(now, id, 0, &draft, to);
                        self.draft = draft;
                    }
                }
                Event::Start { id, branch, .. } => self.start_target(id, branch, relaying),
                Event::Ask { id } => {
                    let now = self.now();
                    let step = portcullis_transaction::Step::Best;
                    let _ended_meanwhile = self.transactions.step(now, id, step);
                }
                Event::Outcome { attempt, .. } => {
                    let result = result_of(&attempt);
                    counters.transactions.attempts.inc(result);
                }
                Event::Ended { id, end } => {
                    self.relays[id.slot() as usize] = None;
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

    /// Writes the request for a target whose turn has come.
    fn start_target(&mut self, id: Id, branch: u8, relaying: &Relaying<'_>) {
        let now = self.now();
        let mut draft = mem::take(&mut self.draft);
        let mut index = mem::take(&mut self.index);
        let relay = self.relays.get(id.slot() as usize);
        let relay = relay.and_then(Option::as_deref);
        let job = self.transactions.job(id, branch);
        let written = match (relay, job) {
            (Some(relay), Some(job)) => {
                let scanned = scan(job.request, Framing::Datagram, &STORED, &mut index);
                debug_assert!(scanned.is_ok(), "a stored request was scanned before");
                let message = Message::new(job.request, &index);
                let branch = Some((job.branch, job.breadth));
                relaying.write(message, job.arrival, &relay.judgement, branch, &mut draft)
            }
            // The transaction has ended.
            _ => return,
        };
        match written {
            Ok(to) => {
                self.transactions.forward(now, id, branch, &draft, to);
            }
            Err(error) => {
                relaying.counters().relay_errors.inc(error.kind());
                let failure = Failure::Refused(error.code());
                self.transactions.fail(now, id, branch, failure);
            }
        }
        self.draft = draft;
        self.index = index;
    }
}

/// Without limits: the header fields of this host may have taken a stored request beyond the limits of received messages.
pub(super) const STORED: Limits = Limits {
    message_bytes: usize::MAX,
    header_lines: usize::MAX,
    header_bytes: usize::MAX,
    start_line_bytes: usize::MAX,
};

/// The worker that owns a transaction.
pub(super) fn owner_of(transaction: u64, workers: usize) -> usize {
    (transaction & 0xff) as usize % workers
}

fn is_to_cancel(response: Message<'_>) -> bool {
    let is_response = response.header(HeaderName::CSeq).is_some();
    is_response && response.cseq().is_some_and(|cseq| cseq.method == b"CANCEL")
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
    if end.cancelled {
        counters.cancelled.inc();
    }
    if end.unconfirmed {
        counters.unconfirmed.inc();
    }
}
