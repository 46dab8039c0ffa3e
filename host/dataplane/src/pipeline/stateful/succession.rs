//! Messages of transactions that this process does not have: after a restart or a change of the mode, and before and after an upgrade.

use std::time::Duration;

use portcullis_metrics::WorkerCounters;
use portcullis_sip::{Arrival, Branch, Message, Proxy, StartLine};
use portcullis_transaction::{Receipt, Time};

use crate::link::{Passing, Predecessor};

/// What one worker knows of transactions in other processes.
pub(super) struct Succession {
    /// Until when responses without a transaction are relayed.
    adopts_until: Time,
    /// The process that had the sockets before, as long as it has transactions.
    predecessor: Option<Predecessor>,
    /// The numbers of transactions that have begun, while they are noted.
    noted: Option<Vec<u64>>,
}

/// Longer than a process lives that has given its sockets away.
const LEAVING: Duration = Duration::from_secs(86_400);

impl Succession {
    /// Responses without a transaction are relayed for this time after the start.
    pub(super) fn new(adopt: Duration) -> Self {
        Self {
            adopts_until: Time::ZERO + adopt,
            predecessor: None,
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
        self.adopts_until = now + LEAVING;
    }

    /// Passes on what belongs to transactions of the process that had the sockets before, or ceases to.
    pub(super) fn succeed(&mut self, predecessor: Option<Predecessor>) {
        self.predecessor = predecessor;
    }

    /// The numbers of all transactions: these, and those of the predecessor. From now on, those that begin are noted.
    pub(super) fn names(&mut self, own: impl Iterator<Item = u64>) -> Vec<u64> {
        self.noted = Some(Vec::new());
        // A successor passes on to this process, and this one to its predecessor.
        let inherited = self.predecessor.iter().flat_map(Predecessor::names);
        own.chain(inherited).collect()
    }

    /// The numbers of the transactions that have begun since [`Succession::names`]. No more are noted.
    pub(super) fn names_since(&mut self) -> Vec<u64> {
        self.noted.take().unwrap_or_default()
    }

    /// Notes a transaction that begins.
    pub(super) fn note_begun(&mut self, number: u64) {
        if let Some(noted) = &mut self.noted {
            noted.push(number);
        }
    }

    /// Whether the process that had the sockets before has transactions.
    pub(super) fn has_predecessor(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Passes on a message without a transaction here, if it may belong to one of the predecessor. Returns whether that process has it now.
    #[cold]
    pub(super) fn pass_on(
        &mut self,
        receipt: Receipt,
        message: Message<'_>,
        arrival: &Arrival,
        proxy: &Proxy,
        counters: &WorkerCounters,
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
            Receipt::Stateless if is_request => match proxy.name_of(message, arrival) {
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
        self.passed(passing, counters)
    }

    /// Passes on that the request with this branch could not be delivered.
    pub(super) fn pass_undelivered(&mut self, branch: Branch, counters: &WorkerCounters) {
        if let Some(predecessor) = &self.predecessor {
            let passing = predecessor.pass_undelivered(branch);
            self.passed(passing, counters);
        }
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
}
