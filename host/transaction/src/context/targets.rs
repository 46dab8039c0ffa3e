//! The targets of a transaction, and which are tried when.

use crate::branch::{Branch, Turn, Why};
use crate::event::{Attempt, Cause, Event};
use crate::kept::Kept;
use crate::outbox::What;
use crate::plan::{MOST_ADDRESSES, MOST_TARGETS, PlanError, Target};
use crate::slab::Id;
use crate::time::Time;
use crate::timers::Timers;
use crate::tools::Tools;

/// The client side of a transaction: its targets take turns.
#[derive(Debug)]
pub(super) struct Targets<T> {
    id: Id,
    branches: Vec<Branch<T>>,
    turn: Turn,
    /// Most targets that are tried at once.
    pub(super) parallel: u8,
    /// What Max-Breadth allows (RFC 5393 §5.3).
    breadth: u8,
}

impl<T: Clone> Targets<T> {
    /// No targets yet. Of `branches`, which is an empty list, only the memory is used.
    pub(super) fn new(id: Id, branches: Vec<Branch<T>>, breadth: u8) -> Self {
        Self {
            id,
            branches,
            turn: Turn { round: 0, rank: 0 },
            parallel: 1,
            breadth,
        }
    }

    pub(super) fn branches(&self) -> &[Branch<T>] {
        &self.branches
    }

    pub(super) fn branch(&mut self, number: u8) -> Option<&mut Branch<T>> {
        self.branches.get_mut(usize::from(number))
    }

    /// Whether Max-Breadth allows any target.
    pub(super) fn are_allowed(&self) -> bool {
        self.breadth > 0
    }

    /// Whether the transaction waits for a result.
    pub(super) fn are_pending(&self) -> bool {
        self.branches.iter().any(Branch::is_pending)
    }

    /// Number of targets whose turn came.
    pub(super) fn tried(&self) -> usize {
        let tried = self
            .branches
            .iter()
            .filter(|branch| branch.was_tried() && !branch.is_replaced);
        tried.count()
    }

    /// Whether the target of this branch may have one more address after it.
    pub(super) fn may_have_next_address(&self, number: u8) -> bool {
        let branches = &self.branches;
        let first = branches.get(usize::from(number)).map(|branch| branch.first);
        let addresses = branches.iter().filter(|branch| Some(branch.first) == first);
        addresses.count() < MOST_ADDRESSES
    }

    /// Goes to the next address of a target.
    pub(super) fn next_address(
        &mut self,
        now: Time,
        number: u8,
        code: u16,
        cause: Cause,
        tools: &mut Tools<T>,
    ) {
        let next = self.branches.len() as u8;
        let Some(branch) = self.branch(number) else {
            return;
        };
        let attempt = branch.result(now, code, cause);
        branch.attempt = Some(attempt);
        let (id, target) = (branch.id, branch.target.to.clone());
        if let Some(&from) = branch.destination() {
            tools.events.push_back(Event::Failover {
                id,
                target,
                from,
                attempt,
            });
        }
        let successor = branch.successor(now, next, &tools.config.timers);
        self.branches.push(successor);
        tools.events.push_back(Event::Start { id, branch: next });
    }

    /// Adds targets for a further round.
    pub(super) fn add(&mut self, targets: Vec<Target<T>>) -> Result<(), PlanError> {
        if targets.is_empty() {
            return Err(PlanError::NoTargets);
        }
        let known = self
            .branches
            .iter()
            .filter(|branch| branch.first == branch.number)
            .count();
        if known + targets.len() > MOST_TARGETS {
            return Err(PlanError::TooManyTargets);
        }
        let round = self.branches.last().map_or(0, |last| last.turn.round + 1);
        for target in targets {
            let number = self.branches.len() as u8;
            self.branches
                .push(Branch::new(self.id, number, target, round));
        }
        Ok(())
    }

    /// Goes to the first turn of the targets that were added last; those before them are not tried any more.
    pub(super) fn begin_turn(&mut self) {
        let Some(round) = self.branches.last().map(|last| last.turn.round) else {
            return;
        };
        for branch in &mut self.branches {
            if branch.turn.round < round && branch.is_waiting() {
                branch.terminate();
            }
        }
        let turns = self.branches.iter().map(|branch| branch.turn);
        let first = turns.filter(|turn| turn.round == round).min();
        self.turn = first.unwrap_or(self.turn);
    }

    /// Goes to the next turn. Returns false if no target waits.
    pub(super) fn next_turn(&mut self) -> bool {
        let waiting = self.branches.iter().filter(|branch| branch.is_waiting());
        let next = waiting.map(|branch| branch.turn).min();
        self.turn = next.unwrap_or(self.turn);
        next.is_some()
    }

    /// Starts targets of this turn, as many as may be tried at once. Their shares of Max-Breadth add up to at most what the request allows.
    ///
    /// A target has its place and its share until it has a result. One that was cancelled keeps them until its 487, at most for 64·T1
    /// (RFC 3261 §9.1). One whose time is over counts like one that has answered 408 (§16.8), although its INVITE may still be answered:
    /// with one target at a time, each has the whole share, and the next one could not start for 64·T1 otherwise.
    pub(super) fn start_turn(&mut self, now: Time, tools: &mut Tools<T>) {
        let pending = self.branches.iter().filter(|branch| branch.is_pending());
        let (count, in_use) = pending.fold((0_u8, 0_u8), |(count, in_use), branch| {
            (count + 1, in_use.saturating_add(branch.breadth))
        });
        let turn = self.turn;
        let is_next = |branch: &Branch<T>| branch.turn == turn && branch.is_waiting();
        let waiting = self
            .branches
            .iter()
            .filter(|branch| is_next(branch))
            .count();

        let free = self.breadth.saturating_sub(in_use);
        let room = self.parallel.saturating_sub(count);
        let starting = room.min(free).min(u8::try_from(waiting).unwrap_or(u8::MAX));
        if starting == 0 {
            return;
        }
        // Without reserve for the targets that still wait, because they get what is given back.
        let share = free / starting;
        let branches = self.branches.iter_mut().filter(|branch| is_next(branch));
        for branch in branches.take(usize::from(starting)) {
            branch.start(now, share, &tools.config.timers);
            tools.events.push_back(Event::Start {
                id: self.id,
                branch: branch.number,
            });
        }
    }

    /// Records the result of a target.
    pub(super) fn end(
        &mut self,
        now: Time,
        number: u8,
        code: u16,
        cause: Cause,
        tools: &mut Tools<T>,
    ) {
        let id = self.id;
        let Some(branch) = self.branch(number) else {
            return;
        };
        // The first result counts, unless a late success follows a failure.
        let counts = |earlier: Attempt| earlier.code >= 300 && code < 300;
        if !branch.attempt.is_none_or(counts) {
            return;
        }
        let attempt = branch.result(now, code, cause);
        branch.attempt = Some(attempt);
        tools.events.push_back(Event::Outcome {
            id,
            target: branch.target.to.clone(),
            attempt,
            to: branch.destination().copied(),
        });
    }

    /// Whether the target with this number has succeeded.
    pub(super) fn has_succeeded(&self, number: u8) -> bool {
        let branch = self.branches.get(usize::from(number));
        let attempt = branch.and_then(|branch| branch.attempt);
        attempt.is_some_and(|attempt| attempt.code < 300)
    }

    /// Cancels all targets without a result. `reason` is the value of Reason; empty for none.
    pub(super) fn cancel(&mut self, now: Time, why: Why, reason: &[u8], tools: &mut Tools<T>) {
        for branch in &mut self.branches {
            if branch.attempt.is_none() {
                branch.cancel(now, why, reason, tools);
            }
        }
    }

    /// Expects no response any more.
    pub(super) fn terminate(&mut self) {
        self.branches
            .iter_mut()
            .for_each(|branch| branch.terminate());
    }

    /// Removes all targets.
    pub(super) fn clear(&mut self) {
        self.branches.clear();
    }

    /// When the first timer of a target is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        let branches = self.branches.iter();
        branches.filter_map(|branch| branch.deadline()).min()
    }

    /// Until when retransmissions of final responses may come, or the call of a target that has failed.
    pub(super) fn retransmissions_until(&self, now: Time, timers: &Timers) -> Option<Time> {
        let calls = self.branches.iter().map(|branch| branch.call_until(timers));
        let calls = calls.filter(|until| until.is_some_and(|until| until > now));
        let responses = self.branches.iter().map(Branch::retransmissions_until);
        responses.chain(calls).flatten().max()
    }

    /// Writes the ACKs for retransmissions of failures.
    pub(super) fn write_kept(&self, out: &mut Vec<u8>) {
        for branch in &self.branches {
            if let Some((to, bytes)) = branch.kept_ack() {
                let ack = Kept {
                    what: What::Ack,
                    branch: branch.number,
                    to,
                    bytes,
                };
                ack.write(out);
            }
        }
    }

    /// Gives the memory of the targets back. Returns the empty list for the next transaction.
    pub(super) fn release(mut self, tools: &mut Tools<T>) -> Vec<Branch<T>> {
        for branch in &mut self.branches {
            branch.release(tools);
        }
        self.branches.clear();
        self.branches
    }
}
