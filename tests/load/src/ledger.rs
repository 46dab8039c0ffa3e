//! The pending requests. With them, every response is counted once, for its request.
//!
//! A request's id is `round × capacity + slot`: the slot is found without a search, and a response to an earlier request of the slot is
//! distinguished from one to the present request.

/// The pending requests.
#[derive(Debug)]
pub(crate) struct Ledger {
    slots: Vec<Slot>,
}

/// The meaning of a response with a certain id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// The first response to a pending request.
    First {
        /// The slot, which is free now.
        slot: usize,
        /// Time from the request to the response; `None` if the request was sent more than once.
        latency_ns: Option<u64>,
    },
    /// A further response to a request that has had one, or was given up.
    Repeated,
    /// No request has had this id.
    Foreign,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Number of rounds begun; the present request of the slot has round `rounds - 1`.
    rounds: u64,
    sent_ns: u64,
    under_way: bool,
    resent: bool,
}

impl Ledger {
    /// A ledger for this many pending requests. Ids begin with this round: a server must not take the requests of a run for retransmissions of
    /// those of an earlier one.
    pub(crate) fn new(capacity: usize, first_round: u64) -> Self {
        let slot = Slot {
            rounds: first_round,
            ..Slot::default()
        };
        Self {
            slots: vec![slot; capacity],
        }
    }

    /// Begins a request in this slot and returns its id. A request that is still pending there is given up.
    pub(crate) fn begin(&mut self, slot: usize, now_ns: u64) -> u64 {
        let capacity = self.slots.len() as u64;
        let entry = &mut self.slots[slot];
        let id = entry.rounds * capacity + slot as u64;
        *entry = Slot {
            rounds: entry.rounds + 1,
            sent_ns: now_ns,
            under_way: true,
            resent: false,
        };
        id
    }

    /// The slot of the request with this id.
    pub(crate) fn slot_of(&self, id: u64) -> usize {
        (id % self.slots.len() as u64) as usize
    }

    /// Whether the request with this id is pending.
    pub(crate) fn is_under_way(&self, id: u64) -> bool {
        let capacity = self.slots.len() as u64;
        let (round, slot) = (id / capacity, (id % capacity) as usize);
        let entry = &self.slots[slot];
        entry.under_way && round + 1 == entry.rounds
    }

    /// Records a response.
    pub(crate) fn settle(&mut self, id: u64, now_ns: u64) -> Settled {
        let capacity = self.slots.len() as u64;
        let (round, slot) = (id / capacity, (id % capacity) as usize);
        let entry = &mut self.slots[slot];
        if round >= entry.rounds {
            return Settled::Foreign;
        }
        if round + 1 < entry.rounds || !entry.under_way {
            return Settled::Repeated;
        }
        entry.under_way = false;
        Settled::First {
            slot,
            latency_ns: (!entry.resent).then(|| now_ns.saturating_sub(entry.sent_ns)),
        }
    }

    /// Slots whose request has been pending for longer than `patience_ns`, with its id. Each counts as sent again now.
    pub(crate) fn overdue(&mut self, now_ns: u64, patience_ns: u64) -> Vec<(usize, u64)> {
        let capacity = self.slots.len() as u64;
        let mut overdue = Vec::new();
        for (slot, entry) in self.slots.iter_mut().enumerate() {
            if entry.under_way && now_ns.saturating_sub(entry.sent_ns) > patience_ns {
                entry.resent = true;
                entry.sent_ns = now_ns;
                overdue.push((slot, (entry.rounds - 1) * capacity + slot as u64));
            }
        }
        overdue
    }

    /// Gives up requests that have been pending for longer than `patience_ns`, and returns their slots.
    pub(crate) fn give_up(&mut self, now_ns: u64, patience_ns: u64) -> Vec<usize> {
        let mut given_up = Vec::new();
        for (slot, entry) in self.slots.iter_mut().enumerate() {
            if entry.under_way && now_ns.saturating_sub(entry.sent_ns) > patience_ns {
                entry.under_way = false;
                given_up.push(slot);
            }
        }
        given_up
    }

    /// Whether a request is pending.
    pub(crate) fn any_under_way(&self) -> bool {
        self.slots.iter().any(|slot| slot.under_way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once() {
        let mut ledger = Ledger::new(3, 5);
        let id = ledger.begin(2, 100);
        assert_eq!(
            ledger.settle(id, 350),
            Settled::First {
                slot: 2,
                latency_ns: Some(250)
            }
        );
        assert_eq!(ledger.settle(id, 360), Settled::Repeated);
        assert!(!ledger.any_under_way());
    }

    #[test]
    fn an_answer_to_an_earlier_user_of_the_slot_is_a_repetition() {
        let mut ledger = Ledger::new(2, 5);
        let first = ledger.begin(1, 0);
        ledger.settle(first, 1);
        let second = ledger.begin(1, 2);
        assert_ne!(first, second);
        assert_eq!(ledger.settle(first, 3), Settled::Repeated);
        assert!(matches!(
            ledger.settle(second, 4),
            Settled::First { slot: 1, .. }
        ));
    }

    #[test]
    fn an_id_that_was_never_given_is_foreign() {
        let mut ledger = Ledger::new(2, 5);
        let id = ledger.begin(0, 0);
        assert_eq!(ledger.settle(id + 1, 1), Settled::Foreign);
        assert_eq!(ledger.settle(id + 2, 1), Settled::Foreign);
        assert_eq!(ledger.settle(u64::MAX, 1), Settled::Foreign);
    }

    #[test]
    fn only_the_overdue_are_sent_again_and_then_have_no_latency() {
        let mut ledger = Ledger::new(2, 5);
        let slow = ledger.begin(0, 0);
        let quick = ledger.begin(1, 90);
        assert_eq!(ledger.overdue(110, 100), [(0, slow)]);
        assert_eq!(ledger.overdue(120, 100), []);
        assert_eq!(
            ledger.settle(slow, 130),
            Settled::First {
                slot: 0,
                latency_ns: None
            }
        );
        assert_eq!(
            ledger.settle(quick, 130),
            Settled::First {
                slot: 1,
                latency_ns: Some(40)
            }
        );
    }

    #[test]
    fn an_answer_to_what_was_given_up_is_no_first_answer() {
        let mut ledger = Ledger::new(2, 5);
        let id = ledger.begin(0, 0);
        ledger.begin(1, 50);
        assert_eq!(ledger.give_up(101, 100), [0]);
        assert_eq!(ledger.settle(id, 102), Settled::Repeated);
        assert!(ledger.any_under_way());
        assert_eq!(ledger.give_up(200, 100), [1]);
        assert!(!ledger.any_under_way());
    }
}
