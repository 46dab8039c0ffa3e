//! Messages of transactions that this process does not have: after a restart or a change of the mode, before and after an upgrade, and those of
//! other hosts with the same addresses.

use std::time::Duration;

use portcullis_config::Adopt;
use portcullis_metrics::WorkerCounters;
use portcullis_sip::{Arrival, Branch, Message, Proxy, StartLine, Transaction};
use portcullis_transaction::{Receipt, Time};

use crate::link::{Passing, Predecessor};

/// What one worker knows of transactions in other processes.
pub(super) struct Succession {
    /// Until when responses without a transaction are relayed.
    adopts_until: Time,
    /// The processes that had the sockets before, as long as they live, the last of them first.
    predecessors: Vec<Predecessor>,
    /// The numbers of transactions that have begun, while they are noted.
    noted: Option<Vec<u64>>,
}

/// A time that does not come.
const NEVER: Time = Time::from_millis(u64::MAX);

/// Longer than a process lives that has given its sockets away.
const LEAVING: Duration = Duration::from_secs(86_400);

impl Succession {
    /// Responses without a transaction are relayed for this time after the start, or always.
    pub(super) fn new(adopt: Adopt) -> Self {
        Self {
            adopts_until: match adopt {
                Adopt::For(time) => Time::ZERO + time,
                Adopt::Always => NEVER,
            },
            predecessors: Vec::new(),
            noted: None,
        }
    }

    /// Whether a response without a transaction is relayed.
    pub(super) fn adopts(&self, now: Time) -> bool {
        now < self.adopts_until
    }

    /// Relays responses without a transaction for as long as a request that is relayed without one may have any.
    pub(super) fn adopt(&mut self, now: Time, ring: Duration) {
        self.adopts_until = self.adopts_until.max(now + ring);
    }

    /// As [`Succession::adopt`], until the process ends.
    pub(super) fn leave(&mut self, now: Time) {
        self.adopts_until = self.adopts_until.max(now + LEAVING);
    }

    /// Passes on what belongs to transactions of the processes that had the sockets before; nothing without any.
    pub(super) fn succeed(&mut self, predecessors: Vec<Predecessor>) {
        self.predecessors = predecessors;
    }

    /// Notes the transactions that begin from now on.
    pub(super) fn note(&mut self) {
        self.noted = Some(Vec::new());
    }

    /// The numbers of the transactions that have begun since [`Succession::note`]. No more are noted.
    pub(super) fn names_since(&mut self) -> Vec<u64> {
        self.noted.take().unwrap_or_default()
    }

    /// Notes a transaction that begins.
    pub(super) fn note_begun(&mut self, number: u64) {
        if let Some(noted) = &mut self.noted {
            noted.push(number);
        }
    }

    /// Whether a process that had the sockets before may have transactions.
    pub(super) fn has_predecessor(&self) -> bool {
        !self.predecessors.is_empty()
    }

    /// Passes on a message without a transaction here, if it may belong to one of a predecessor. Returns whether that process has it now.
    #[cold]
    pub(super) fn pass_on(
        &mut self,
        receipt: Receipt,
        message: Message<'_>,
        arrival: &Arrival,
        proxy: &Proxy,
        counters: &WorkerCounters,
    ) -> bool {
        let is_request = matches!(message.start_line(), StartLine::Request { .. });
        let name = match receipt {
            // The connections of those processes lead to them.
            Receipt::New(_) | Receipt::Stateless if arrival.connection.is_some() => None,
            Receipt::New(name) => Some(name.transaction),
            Receipt::Stateless if is_request => {
                let name = proxy.name_of(message, arrival);
                name.map(|name| name.transaction)
            }
            Receipt::Stray => {
                let branch = proxy.branch_of(message).ok();
                branch.map(|branch| branch.transaction)
            }
            Receipt::Stateless
            | Receipt::Again
            | Receipt::Handled
            | Receipt::Conflict
            | Receipt::Changed
            | Receipt::Unreadable => None,
        };
        let Some(name) = name else {
            return false;
        };
        // The last process may have begun transactions since, for requests of its connections, and so may those before it, to which it passes on.
        let or_last = receipt == Receipt::Stray;
        self.pass(name, or_last, counters, |predecessor| {
            predecessor.pass(message, arrival)
        })
    }

    /// Passes on that the request with this branch could not be delivered.
    pub(super) fn pass_undelivered(&mut self, branch: Branch, counters: &WorkerCounters) {
        self.pass(branch.transaction, false, counters, |predecessor| {
            predecessor.pass_undelivered(branch)
        });
    }

    /// Passes something on to the process with this transaction, or otherwise to the last one, if it may. Counts that, and forgets processes that
    /// have ended. Returns whether one has it now.
    fn pass(
        &mut self,
        transaction: Transaction,
        or_last: bool,
        counters: &WorkerCounters,
        pass: impl Fn(&Predecessor) -> Passing,
    ) -> bool {
        let counters = &counters.transactions;
        loop {
            let mut all = self.predecessors.iter();
            let named = all.position(|predecessor| predecessor.has(transaction));
            let last = (or_last && !self.predecessors.is_empty()).then_some(0);
            let Some(at) = named.or(last) else {
                return false;
            };
            match pass(&self.predecessors[at]) {
                Passing::Done => {
                    counters.passed.inc();
                    return true;
                }
                Passing::Full => {
                    counters.not_passed.inc();
                    return false;
                }
                Passing::Ended => drop(self.predecessors.remove(at)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_several_adopts_for_as_long_as_it_runs() {
        let late = Time::from_millis(u64::MAX - 1);
        let alone = Succession::new(Adopt::For(Duration::from_secs(200)));
        assert!(alone.adopts(Time::from_millis(199_999)));
        assert!(!alone.adopts(Time::from_millis(200_000)));
        let mut shared = Succession::new(Adopt::Always);
        assert!(shared.adopts(late));
        shared.adopt(Time::ZERO, Duration::from_secs(1));
        shared.leave(Time::ZERO);
        assert!(shared.adopts(late), "nothing shortens it");
    }
}
