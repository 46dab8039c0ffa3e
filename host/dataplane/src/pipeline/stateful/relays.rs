//! The requests that are relayed in the transactions of one worker, and what their tenants hold of the table.

use std::sync::Arc;

use portcullis_metrics::TenantCounters;
use portcullis_policy::ForwardTarget;
use portcullis_transaction::{Id, Usage};

use super::relay::Relay;
use super::shares::Shares;
use crate::pipeline::judge::Judgement;
use crate::pipeline::responder::NoRoom;

/// What the requests of transactions need in order to be written for a target.
pub(super) struct Relays {
    /// By the slot of the transaction.
    #[expect(
        clippy::vec_box,
        reason = "a list that grows moves only pointers, and their memory is used again"
    )]
    slots: Vec<Box<Option<Relay>>>,
    shares: Shares,
    /// The counters of the operator, and the number of the worker's element in those of tenants.
    operator: Arc<[TenantCounters]>,
    number: usize,
}

impl Relays {
    /// `operator` has the counters of the operator, with an element for each worker; `number` is that of this worker.
    pub(super) fn new(shares: Shares, operator: Arc<[TenantCounters]>, number: usize) -> Self {
        Self {
            slots: Vec::new(),
            shares,
            operator,
            number,
        }
    }

    /// Whether the tenant of a request may have a further transaction.
    pub(super) fn admits(&self, judgement: &Judgement, usage: Usage) -> Result<(), NoRoom> {
        let tenant = counters_of(judgement, &self.operator, self.number);
        self.shares.admits(tenant, usage)
    }

    /// The request of this transaction.
    pub(super) fn get(&self, id: Id) -> Option<&Relay> {
        (**self.slots.get(id.slot() as usize)?).as_ref()
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Relay> {
        (**self.slots.get_mut(id.slot() as usize)?).as_mut()
    }

    /// Adds the request of a new transaction, which has so many bytes.
    pub(super) fn insert(&mut self, id: Id, mut relay: Relay, request: usize) {
        let slot = id.slot() as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, Box::default);
        }
        relay.held = relay.to_hold(request, relay.copied(relay.targets()));
        let tenant = counters_of(&relay.judgement, &self.operator, self.number);
        self.shares.take(tenant, relay.held);
        *self.slots[slot] = Some(relay);
    }

    /// Adds targets to a request, which has so many bytes.
    pub(super) fn extend(&mut self, id: Id, targets: Vec<ForwardTarget>, request: usize) {
        let relay = self.slots.get_mut(id.slot() as usize);
        let Some(relay) = relay.and_then(|relay| (**relay).as_mut()) else {
            return;
        };
        let copied = relay.copied(&targets);
        relay.extend(targets);
        let held = relay.to_hold(request, copied);
        let tenant = counters_of(&relay.judgement, &self.operator, self.number);
        self.shares.change(tenant, relay.held, held);
        relay.held = held;
    }

    /// Removes the request of a transaction that has ended.
    pub(super) fn remove(&mut self, id: Id) {
        if let Some(relay) = self.slots[id.slot() as usize].take() {
            let tenant = counters_of(&relay.judgement, &self.operator, self.number);
            self.shares.give_back(tenant, relay.held);
        }
    }
}

/// The counters of a worker for the tenant of a request.
fn counters_of<'c>(
    judgement: &'c Judgement,
    operator: &'c [TenantCounters],
    number: usize,
) -> &'c TenantCounters {
    match &judgement.tenant {
        Some(tenant) => &tenant.counters[number],
        None => &operator[number],
    }
}
