//! All transactions of a worker.

mod receive;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use portcullis_sip::{
    Arrival, Branch as OwnBranch, Destination, Message, Proxy, RequestName, Transaction,
};
use thiserror::Error;

use crate::absorber::Absorbers;
use crate::branch::Branch;
use crate::config::Config;
use crate::context::{Context, Phase};
use crate::directory::{Directory, Place};
use crate::event::{Attempt, Event, Failure};
use crate::listed::Listed;
use crate::outbox::Outbox;
use crate::plan::{Plan, PlanError, Step};
use crate::slab::{Id, Slab};
use crate::time::Time;
use crate::tools::Tools;
use crate::wheel::Wheel;

pub use receive::Receipt;

/// The transactions of one worker. `T` is what the caller needs in order to write the request for a target.
///
/// Each method that takes a time may produce messages and events: the caller handles those of [`Transactions::poll_event`] and sends
/// those of [`Transactions::take_sends`] afterwards, and then sets its timer to [`Transactions::next_deadline`]. Time must not go back. Ids of
/// transactions that have ended are accepted and mean nothing.
pub struct Transactions<T> {
    tools: Tools<T>,
    contexts: Slab<Context<T>>,
    absorbers: Absorbers,
    directory: Directory,
    /// One timer for each active transaction, by its slot.
    wheel: Wheel,
    /// Empty lists of targets, with their memory.
    spare: Vec<Vec<Branch<T>>>,
}

/// Most lists of targets that are kept.
const MOST_SPARE: usize = 4_096;

/// Most absorbers that are forgotten for the bytes of one new request.
const FORGET_AT_ONCE: usize = 64;

/// Why a request cannot become a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BeginError {
    /// A limit is reached: the sender should try later (503 with Retry-After).
    #[error("too many transactions: answer 503 with Retry-After")]
    Full,
    /// There is one with this name.
    #[error("the request has a transaction already")]
    Exists,
}

/// What a target needs to have its request written.
#[derive(Clone, Copy, Debug)]
pub struct Job<'t, T> {
    /// The request as received.
    pub request: &'t [u8],
    /// How it came.
    pub arrival: &'t Arrival,
    /// The target.
    pub target: &'t T,
    /// The branch to write into the Via.
    pub branch: OwnBranch,
    /// The share of Max-Breadth (RFC 5393 §5.3.3).
    pub breadth: u8,
}

/// Where [`Transactions::names`] goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameSlot {
    /// A slot of active transactions.
    Active(u32),
    /// A slot of ended ones.
    Ended(u32),
}

/// Numbers of records and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Active transactions.
    pub active: usize,
    /// Ended transactions that absorb retransmissions.
    pub absorbers: usize,
    /// Bytes of stored messages, and those that the caller holds for transactions.
    pub bytes: usize,
    /// Of these, the bytes of active transactions.
    pub active_bytes: usize,
}

impl NameSlot {
    /// The first one.
    pub const FIRST: Self = Self::Active(0);
}

impl<T: Clone> Transactions<T> {
    /// No transactions, with the rules of this host.
    pub fn new(proxy: Arc<Proxy>, config: Config) -> Self {
        Self {
            directory: Directory::new(&config),
            tools: Tools::new(proxy, config),
            contexts: Slab::default(),
            absorbers: Absorbers::default(),
            wheel: Wheel::default(),
            spare: Vec::new(),
        }
    }

    /// Makes a transaction of a request that [`Transactions::receive`] found new. `back` is where its responses go: see
    /// [`Proxy::way_up`].
    ///
    /// From now on retransmissions of the request are absorbed. The caller decides, and calls [`Transactions::plan`] or
    /// [`Transactions::answer`]. A request that is rejected at once needs no transaction: [`Proxy::reject`] answers each retransmission alike.
    ///
    /// # Errors
    /// [`BeginError::Full`] at the limits of [`Config`]; for a request within a dialog, at twice these limits. `is_in_dialog` says that it has
    /// the valid seal of a dialog ([`Proxy::dialog`]): any sender can invent a tag in To.
    pub fn begin(
        &mut self,
        now: Time,
        name: RequestName,
        message: Message<'_>,
        arrival: &Arrival,
        back: Destination,
        is_in_dialog: bool,
    ) -> Result<Id, BeginError> {
        if self.place_of(name.transaction).is_some() {
            return Err(BeginError::Exists);
        }
        let times = if is_in_dialog { 2 } else { 1 };
        if self.is_full(times) || !self.make_room(times) {
            return Err(BeginError::Full);
        }
        let branches = self.spare.pop().unwrap_or_default();
        let Self {
            tools, contexts, ..
        } = self;
        let id = contexts.insert_with(|id| {
            Context::new(now, id, name, message, *arrival, back, branches, tools)
        });
        self.directory
            .insert(name.transaction, Place::Active(id.slot()));
        self.settle(now, id);
        Ok(id)
    }

    /// The decision on a request: these targets.
    ///
    /// # Errors
    /// If the transaction does not wait for a decision, or the targets are too few or too many.
    pub fn plan(&mut self, now: Time, id: Id, plan: Plan<T>) -> Result<(), PlanError> {
        self.with(now, id, |context, tools| context.plan(now, plan, tools))
            .unwrap_or(Err(PlanError::TooLate))
    }

    /// Says how many bytes the caller holds for a transaction, in place of an earlier number. They count in the limit of bytes until the
    /// transaction ends.
    pub fn charge(&mut self, id: Id, bytes: usize) {
        if let Some(context) = self.contexts.record_mut(id) {
            self.tools.charged = self.tools.charged - context.charged + bytes;
            context.charged = bytes;
        }
    }

    /// The answer to [`Event::Ask`].
    ///
    /// # Errors
    /// If the transaction does not wait for it, or the targets are too few or too many.
    pub fn step(&mut self, now: Time, id: Id, step: Step<T>) -> Result<(), PlanError> {
        self.with(now, id, |context, tools| context.step(now, step, tools))
            .unwrap_or(Err(PlanError::TooLate))
    }

    /// Answers a request: in place of [`Transactions::plan`] or [`Transactions::step`]. Arguments as for [`Proxy::reject`]. Returns whether
    /// the transaction waited for a decision.
    pub fn answer<H: AsRef<str>>(
        &mut self,
        now: Time,
        id: Id,
        code: u16,
        reason: &str,
        headers: &[(H, H)],
    ) -> bool {
        let answered = self.with(now, id, |context, tools| {
            let is_awaited = matches!(context.phase(), Phase::Deciding | Phase::Asking);
            if is_awaited {
                context.answer(now, code, reason, headers, tools);
            }
            is_awaited
        });
        answered.unwrap_or(false)
    }

    /// What is needed to write the request for a target: after [`Event::Start`].
    pub fn job(&self, id: Id, branch: u8) -> Option<Job<'_, T>> {
        let context = self.contexts.record(id)?;
        let target = context.branches().get(usize::from(branch))?;
        Some(Job {
            request: context.request(),
            arrival: context.arrival(),
            target: &target.target.to,
            branch: OwnBranch {
                transaction: context.peer.name.transaction,
                number: branch,
            },
            breadth: target.breadth,
        })
    }

    /// The request for a target, as [`Proxy::forward`] has written it. Returns whether it will be sent.
    pub fn forward(
        &mut self,
        now: Time,
        id: Id,
        branch: u8,
        request: &[u8],
        to: Destination,
    ) -> bool {
        self.forward_first(now, id, branch, request, to, None)
    }

    /// As [`Transactions::forward`], for a target with further addresses. If the target sends no response within `followed`, answers 503, or
    /// cannot be reached, [`Event::Failover`] and [`Event::Start`] follow, at most until [`MOST_ADDRESSES`](crate::MOST_ADDRESSES) of its
    /// addresses were tried. Each is a new client transaction with a branch of its own (RFC 3263 §4.3). After a provisional response above 100,
    /// none follows. `None` for the last address.
    pub fn forward_first(
        &mut self,
        now: Time,
        id: Id,
        branch: u8,
        request: &[u8],
        to: Destination,
        followed: Option<Duration>,
    ) -> bool {
        let forwarded = self.with(now, id, |context, tools| {
            context.forward(now, branch, request, to, followed, tools)
        });
        forwarded.unwrap_or(false)
    }

    /// Where the request has been for the target of this branch: the addresses that were tried before.
    pub fn tried(&self, id: Id, branch: u8) -> impl Iterator<Item = &Destination> {
        let branches = self.contexts.record(id).map(Context::branches);
        let branches = branches.unwrap_or_default();
        let this = branches.get(usize::from(branch));
        let earlier = branches.iter().filter(move |earlier| {
            this.is_some_and(|this| earlier.first == this.first && earlier.number < this.number)
        });
        earlier.filter_map(|earlier| earlier.destination())
    }

    /// The request for a target could not be written or sent. Without meaning once a response has come.
    pub fn fail(&mut self, now: Time, id: Id, branch: u8, failure: Failure) {
        self.with(now, id, |context, tools| {
            context.fail(now, branch, failure, tools);
        });
    }

    /// As [`Transactions::fail`], for the branch of a request that this host has sent
    /// ([`Proxy::branch_of_request`]): an ICMP error or a broken connection brings it back. An error for a retransmission counts like one for
    /// the request itself; one for an ACK or a CANCEL is only counted by the caller (RFC 3261 §17.1.4). Returns whether the
    /// transaction is active.
    pub fn fail_branch(&mut self, now: Time, branch: OwnBranch, failure: Failure) -> bool {
        let Some(Place::Active(slot)) = self.place_of(branch.transaction) else {
            return false;
        };
        let Some(id) = self.contexts.id_at(slot) else {
            return false;
        };
        self.fail(now, id, branch.number, failure);
        true
    }

    /// Whether the request of this branch was sent to where a message comes from, and not along the flow of a client.
    pub fn was_sent_to(&self, branch: OwnBranch, source: &Arrival) -> bool {
        let Some(Place::Active(slot)) = self.place_of(branch.transaction) else {
            return false;
        };
        let context = (self.contexts.id_at(slot)).and_then(|id| self.contexts.record(id));
        let to = context.and_then(|context| {
            let branch = context.branches().get(usize::from(branch.number))?;
            branch.destination()
        });
        to.is_some_and(|to| {
            !to.is_flow && to.transport == source.transport && to.addr == source.source
        })
    }

    /// The results of the targets that were tried, in the order of their numbers: of a target with several addresses, the result of the last
    /// one that was tried.
    pub fn attempts(&self, id: Id) -> impl Iterator<Item = (&T, Attempt)> {
        let context = self.contexts.record(id);
        let branches = context.map(Context::branches).unwrap_or_default();
        branches
            .iter()
            .filter(|branch| !branch.is_replaced)
            .filter_map(|branch| Some((&branch.target.to, branch.attempt?)))
    }

    /// The code of the best answer so far, and the response as received; `None` in its place for a failure of our own.
    pub fn best(&self, id: Id) -> Option<(u16, Option<&[u8]>)> {
        let chosen = self.contexts.record(id)?.best().answer()?;
        let response = (!chosen.response.is_empty()).then_some(&chosen.response[..]);
        Some((chosen.code, response))
    }

    /// Cancels an INVITE as its sender would: each target gets a CANCEL once it has sent a provisional response, and the sender a 487 when all
    /// are done. Returns the number of targets that are not done yet; `None` if the transaction has ended, has its answer, or is none of an
    /// INVITE.
    pub fn cancel(&mut self, now: Time, id: Id) -> Option<usize> {
        let cancelled = self.with(now, id, |context, tools| {
            let is_pending = context.is_invite() && context.phase() != Phase::Answered;
            is_pending.then(|| {
                context.cancel(now, b"", tools);
                context.targets_live()
            })
        });
        cancelled.flatten()
    }

    /// The active transaction in a slot ([`Id::slot`]); `None` if there is none.
    pub fn listed(&self, slot: u32) -> Option<Listed<'_>> {
        let id = self.contexts.id_at(slot)?;
        Some(Listed::of(id, self.contexts.record(id)?))
    }

    /// Number of slots: more than that of any active transaction.
    pub fn slots(&self) -> u32 {
        self.contexts.slots()
    }

    /// Handles timers that are due, at most this many. Returns whether all were.
    pub fn expire(&mut self, now: Time, at_most: usize) -> bool {
        for _ in 0..at_most {
            if let Some(absorber) = self.absorbers.expired(now) {
                self.forget(absorber);
                continue;
            }
            let Some(slot) = self.wheel.fire(now) else {
                return true;
            };
            if let Some(id) = self.contexts.id_at(slot) {
                self.with(now, id, |context, tools| context.expire(now, tools));
            }
        }
        false
    }

    /// When [`Transactions::expire`] should be called next.
    pub fn next_deadline(&self) -> Option<Time> {
        let deadlines = [self.wheel.next(), self.absorbers.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Exchanges the messages to send for the memory of `into`, whose messages are removed. Handling an event may add messages: take them when
    /// [`Transactions::poll_event`] has none left.
    pub fn take_sends(&mut self, into: &mut Outbox) {
        into.clear();
        std::mem::swap(&mut self.tools.outbox, into);
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event<T>> {
        self.tools.events.pop_front()
    }

    /// What is stored.
    pub fn usage(&self) -> Usage {
        Usage {
            active: self.contexts.len(),
            absorbers: self.absorbers.len(),
            bytes: self.bytes(),
            active_bytes: self.tools.bytes(),
        }
    }

    /// Adds the names of transactions, active or ended, in this many slots from here on. Returns where the next ones are; `None` at the end.
    ///
    /// Between two calls, transactions may begin, end and be forgotten. Those that began before the first call are found nevertheless, because an
    /// active one that ends meanwhile is found among the ended ones.
    pub fn names(
        &self,
        from: NameSlot,
        slots: u32,
        into: &mut Vec<Transaction>,
    ) -> Option<NameSlot> {
        let all = match from {
            NameSlot::Active(_) => self.contexts.slots(),
            NameSlot::Ended(_) => self.absorbers.slots(),
        };
        let (NameSlot::Active(first) | NameSlot::Ended(first)) = from;
        let end = all.min(first.saturating_add(slots));
        for slot in first..end {
            into.extend(match from {
                NameSlot::Active(_) => self
                    .contexts
                    .at(slot)
                    .map(|active| active.peer.name.transaction),
                NameSlot::Ended(_) => self.absorbers.transaction_at(slot),
            });
        }
        match from {
            NameSlot::Active(_) if end < all => Some(NameSlot::Active(end)),
            NameSlot::Active(_) => Some(NameSlot::Ended(0)),
            NameSlot::Ended(_) => (end < all).then_some(NameSlot::Ended(end)),
        }
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.directory.is_empty() && self.contexts.is_empty() && self.absorbers.len() == 0
    }

    /// The earliest deadline of all active transactions, found without the wheel.
    #[cfg(any(test, feature = "invariants"))]
    pub(crate) fn first_deadline(&self) -> Option<Time> {
        let contexts = self.contexts.iter().map(Context::deadline);
        contexts.flatten().min()
    }

    /// Whether active transactions reach so many times the configured limits.
    fn is_full(&self, times: usize) -> bool {
        let Config { most, bytes, .. } = self.tools.config;
        self.contexts.len() >= most.saturating_mul(times)
            || self.tools.bytes() >= bytes.saturating_mul(times)
    }

    /// Forgets the oldest absorbers until all messages take less than so many times the configured bytes. Returns whether they do: few of the
    /// oldest ones may have a message, and one request has to pay for a bounded number of them only.
    fn make_room(&mut self, times: usize) -> bool {
        let most = self.tools.config.bytes.saturating_mul(times);
        for _ in 0..FORGET_AT_ONCE {
            if self.bytes() < most {
                return true;
            }
            let Some(oldest) = self.absorbers.oldest() else {
                break;
            };
            self.forget(oldest);
        }
        self.bytes() < most
    }

    /// Bytes of all stored messages, and of what the caller holds.
    fn bytes(&self) -> usize {
        self.tools.bytes() + self.absorbers.bytes()
    }

    /// Does something with an active transaction, and what follows from it.
    fn with<R>(
        &mut self,
        now: Time,
        id: Id,
        work: impl FnOnce(&mut Context<T>, &mut Tools<T>) -> R,
    ) -> Option<R> {
        let context = self.contexts.record_mut(id)?;
        let result = work(context, &mut self.tools);
        self.settle(now, id);
        Some(result)
    }

    /// Sets the timer of a transaction, or ends it.
    fn settle(&mut self, now: Time, id: Id) {
        let Some(context) = self.contexts.record(id) else {
            return;
        };
        if context.is_over() {
            return self.retire(now, id);
        }
        let deadline = context.deadline();
        debug_assert!(deadline.is_some(), "an active transaction has a timer");
        let deadline = deadline.unwrap_or(now);
        // A timer that is too early is set again when it fires: most deadlines only move away.
        let armed = self.wheel.time_of(id.slot());
        if armed.is_none_or(|armed| armed > deadline) {
            self.wheel.arm(id.slot(), now, deadline);
        }
    }

    fn retire(&mut self, now: Time, id: Id) {
        let Some(context) = self.contexts.remove(id) else {
            return;
        };
        self.wheel.disarm(id.slot());
        let transaction = context.peer.name.transaction;
        self.directory.remove(transaction, Place::Active(id.slot()));
        let (absorber, branches) = context.retire(now, &mut self.absorbers, &mut self.tools);
        if self.spare.len() < MOST_SPARE {
            self.spare.push(branches);
        }
        if let Some(absorber) = absorber {
            let place = Place::Ended(absorber.slot());
            self.directory.insert(transaction, place);
        }
        if self.absorbers.len() > self.tools.config.absorbers
            && let Some(oldest) = self.absorbers.oldest()
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, absorber: Id) {
        let transaction = self.absorbers.remove(absorber);
        if let Some(transaction) = transaction {
            let place = Place::Ended(absorber.slot());
            self.directory.remove(transaction, place);
        }
    }

    fn place_of(&self, transaction: Transaction) -> Option<Place> {
        self.directory.find(transaction, |place| {
            name_at(&self.contexts, &self.absorbers, place)
        })
    }
}

impl<T> fmt::Debug for Transactions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactions")
            .field("active", &self.contexts.len())
            .field("absorbers", &self.absorbers.len())
            .finish_non_exhaustive()
    }
}

fn name_at<T>(
    contexts: &Slab<Context<T>>,
    absorbers: &Absorbers,
    place: Place,
) -> Option<Transaction> {
    match place {
        Place::Active(slot) => Some(contexts.at(slot)?.peer.name.transaction),
        Place::Ended(slot) => absorbers.transaction_at(slot),
    }
}
