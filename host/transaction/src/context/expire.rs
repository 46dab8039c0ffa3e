//! Timers of a transaction.

use super::{Context, Phase};
use crate::branch::Why;
use crate::event::Cause;
use crate::machine::ServerTimer;
use crate::time::Time;
use crate::tools::Tools;

impl<T: Clone> Context<T> {
    /// Handles the timers that are due.
    pub(crate) fn expire(&mut self, now: Time, tools: &mut Tools<T>) {
        match self.server.expire(now, &tools.config.timers) {
            ServerTimer::Nothing => {}
            ServerTimer::Trying => self.send_trying(now, tools),
            ServerTimer::Resend => self.resend(tools),
            ServerTimer::Unconfirmed => self.is_unconfirmed = true,
            ServerTimer::Ended => {}
        }
        if self.phase != Phase::Answered && self.limit <= now {
            self.end_search(now, tools);
        }
        let mut is_changed = false;
        for at in 0..self.branches.len() {
            let branch = &mut self.branches[at];
            if branch.deadline().is_none_or(|deadline| deadline > now) {
                continue;
            }
            let number = branch.number;
            if let Some((code, cause)) = branch.expire(now, tools) {
                self.end_locally(now, number, code, cause, tools);
                is_changed = true;
            }
        }
        if is_changed {
            self.advance(now, tools);
        }
    }

    /// When [`Context::expire`] should be called next.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let limit = (self.phase != Phase::Answered).then_some(self.limit);
        let branches = self.branches.iter().filter_map(|branch| branch.deadline());
        let own = [limit, self.server.deadline()].into_iter().flatten();
        own.chain(branches).min()
    }

    /// The time for the whole transaction is over.
    fn end_search(&mut self, now: Time, tools: &mut Tools<T>) {
        if !self.server.is_invite() {
            if self.phase == Phase::Running && self.is_closed {
                // A 6xx has waited long enough for the other targets.
                return self.finish(now, tools);
            }
            // The sender has given up, too.
            self.end_pending(now, tools, |_| true);
            self.branches
                .iter_mut()
                .for_each(|branch| branch.terminate());
            return self.give_up(now, tools);
        }
        self.is_closed = true;
        self.limit = Time::from_millis(u64::MAX);
        match self.phase {
            Phase::Deciding | Phase::Asking => self.finish(now, tools),
            Phase::Running => {
                for branch in &mut self.branches {
                    if branch.attempt.is_none() {
                        branch.cancel(now, Why::RangOut, b"", tools);
                    }
                }
                // One that has not answered at all would only be cancelled if it rang later.
                self.end_pending(now, tools, |branch| !branch.is_ringing());
                self.advance(now, tools);
            }
            Phase::Silent | Phase::Answered => {}
        }
    }

    fn end_pending(
        &mut self,
        now: Time,
        tools: &mut Tools<T>,
        is_over: impl Fn(&crate::branch::Branch<T>) -> bool,
    ) {
        for at in 0..self.branches.len() {
            let branch = &self.branches[at];
            if branch.is_pending() && is_over(branch) {
                self.end_locally(now, branch.number, 408, Cause::NoAnswer, tools);
            }
        }
    }
}
