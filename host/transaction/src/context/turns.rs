//! Which targets are tried when.

use super::{Context, Phase};
use crate::branch::{Branch, Turn};
use crate::event::{Attempt, Cause, Event};
use crate::time::Time;
use crate::tools::Tools;

impl<T: Clone> Context<T> {
    /// Does what is next: waits for targets, starts those whose turn it is, asks, or answers.
    pub(super) fn advance(&mut self, now: Time, tools: &mut Tools<T>) {
        while self.phase == Phase::Running {
            if !self.is_closed {
                self.start_turn(now, tools);
            }
            if self.branches.iter().any(Branch::is_pending) {
                return;
            }
            match self.next_turn() {
                Some(turn) if !self.is_closed && self.may_retry() => {
                    self.turn = turn;
                    self.best.set_aside(&mut tools.buffers);
                }
                Some(_) | None if !self.is_closed && self.asks_left > 0 => {
                    self.asks_left -= 1;
                    self.phase = Phase::Asking;
                    tools.events.push_back(Event::Ask { id: self.id });
                }
                Some(_) | None => self.finish(now, tools),
            }
        }
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

    /// Records that a target ended without an answer.
    pub(super) fn end_locally(
        &mut self,
        now: Time,
        number: u8,
        code: u16,
        cause: Cause,
        tools: &mut Tools<T>,
    ) {
        self.best.offer_local(code, &mut tools.buffers);
        self.end_branch(now, number, code, cause, tools);
    }

    /// Records the result of a target.
    pub(super) fn end_branch(
        &mut self,
        now: Time,
        number: u8,
        code: u16,
        cause: Cause,
        tools: &mut Tools<T>,
    ) {
        let Some(branch) = self.branches.get_mut(usize::from(number)) else {
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
            id: self.id,
            target: branch.target.to.clone(),
            attempt,
        });
    }

    /// Starts targets of this turn, as many as may be tried at once. Their shares of Max-Breadth add up to at most what the request allows.
    ///
    /// A target has its place and its share until it has a result. One that was cancelled keeps them until its 487, at most for 64·T1
    /// (RFC 3261 §9.1). One whose time is over counts like one that has answered 408 (§16.8), although its INVITE may still be answered:
    /// with one target at a time, each has the whole share, and the next one could not start for 64·T1 otherwise.
    fn start_turn(&mut self, now: Time, tools: &mut Tools<T>) {
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

    /// The turn after this one.
    fn next_turn(&self) -> Option<Turn> {
        let waiting = self.branches.iter().filter(|branch| branch.is_waiting());
        waiting.map(|branch| branch.turn).min()
    }

    fn may_retry(&self) -> bool {
        let chosen = self.best.chosen();
        chosen.is_none_or(|chosen| self.retry_on.has(chosen.code))
    }
}
