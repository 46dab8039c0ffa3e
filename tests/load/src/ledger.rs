//! The pending requests. With them, every response is counted once, for its request.
//!
//! A request's id is `round × capacity + slot`: the slot is found without a search, and a response to an earlier request of the slot is
//! distinguished from one to the present request.

use crate::plan::Retransmit;

/// The pending requests.
#[derive(Debug)]
pub(crate) struct Ledger {
    slots: Vec<Slot>,
    retransmit: Retransmit,
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
    /// When the request, or the BYE of its call, is sent again.
    due_ns: u64,
    /// Time until it is sent once more.
    interval_ns: u64,
    under_way: bool,
    resent: bool,
    has_rung: bool,
}

impl Ledger {
    /// A ledger for this many pending requests, which are sent again in this way. Ids begin with this round: a server must not take the requests of a run for retransmissions of
    /// those of an earlier one.
    pub(crate) fn new(capacity: usize, first_round: u64, retransmit: Retransmit) -> Self {
        let slot = Slot {
            rounds: first_round,
            ..Slot::default()
        };
        Self {
            slots: vec![slot; capacity],
            retransmit,
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
            due_ns: now_ns + self.retransmit.first_ns(),
            interval_ns: self.retransmit.first_ns(),
            under_way: true,
            ..Slot::default()
        };
        id
    }

    /// A provisional response came: the request is not sent again (RFC 3261 §17.1.1.2). Returns the time from the request to the first 180;
    /// `None` otherwise, and if the request was sent more than once.
    pub(crate) fn proceed(&mut self, id: u64, code: u16, now_ns: u64) -> Option<u64> {
        let entry = self.pending(id)?;
        entry.due_ns = u64::MAX;
        let is_first = code == 180 && !entry.has_rung;
        entry.has_rung |= is_first;
        let is_timed = is_first && !entry.resent;
        is_timed.then(|| now_ns.saturating_sub(entry.sent_ns))
    }

    /// The BYE of a call is sent. Returns the time since its INVITE; `None` if that was sent more than once.
    pub(crate) fn hang_up(&mut self, id: u64, now_ns: u64) -> Option<u64> {
        let first_ns = self.retransmit.first_ns();
        let entry = self.pending(id)?;
        entry.due_ns = now_ns + first_ns;
        entry.interval_ns = first_ns;
        (!entry.resent).then(|| now_ns.saturating_sub(entry.sent_ns))
    }

    fn pending(&mut self, id: u64) -> Option<&mut Slot> {
        let slot = self.slot_of(id);
        self.is_under_way(id).then(|| &mut self.slots[slot])
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

    /// Slots whose request is to be sent again, with its id. Each counts as sent again now.
    pub(crate) fn overdue(&mut self, now_ns: u64) -> Vec<(usize, u64)> {
        let capacity = self.slots.len() as u64;
        let mut overdue = Vec::new();
        for (slot, entry) in self.slots.iter_mut().enumerate() {
            if entry.under_way && entry.due_ns < now_ns {
                entry.resent = true;
                entry.interval_ns = self.retransmit.after_ns(entry.interval_ns);
                entry.due_ns = now_ns + entry.interval_ns;
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
    use std::time::Duration;

    use super::*;

    const NEVER: Retransmit = Retransmit::Never;

    #[test]
    fn an_answer_counts_once() {
        let mut ledger = Ledger::new(3, 5, NEVER);
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
        let mut ledger = Ledger::new(2, 5, NEVER);
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
        let mut ledger = Ledger::new(2, 5, NEVER);
        let id = ledger.begin(0, 0);
        assert_eq!(ledger.settle(id + 1, 1), Settled::Foreign);
        assert_eq!(ledger.settle(id + 2, 1), Settled::Foreign);
        assert_eq!(ledger.settle(u64::MAX, 1), Settled::Foreign);
    }

    #[test]
    fn only_the_overdue_are_sent_again_and_then_have_no_latency() {
        let mut ledger = Ledger::new(2, 5, Retransmit::Every(Duration::from_nanos(100)));
        let slow = ledger.begin(0, 0);
        let quick = ledger.begin(1, 90);
        assert_eq!(ledger.overdue(110), [(0, slow)]);
        assert_eq!(ledger.overdue(120), []);
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
        let mut ledger = Ledger::new(2, 5, NEVER);
        let id = ledger.begin(0, 0);
        ledger.begin(1, 50);
        assert_eq!(ledger.give_up(101, 100), [0]);
        assert_eq!(ledger.settle(id, 102), Settled::Repeated);
        assert!(ledger.any_under_way());
        assert_eq!(ledger.give_up(200, 100), [1]);
        assert!(!ledger.any_under_way());
    }

    #[test]
    fn a_call_is_sent_again_as_by_a_user_agent() {
        const MS: u64 = 1_000_000;
        let mut ledger = Ledger::new(1, 5, Retransmit::AsUserAgent);
        let times = |ledger: &mut Ledger, from, until| {
            let times = (from..until).filter(|ms| !ledger.overdue(ms * MS).is_empty());
            times.collect::<Vec<_>>()
        };
        let id = ledger.begin(0, 0);
        assert_eq!(times(&mut ledger, 0, 2_000), [501, 1_502]);
        // A 100 stops the INVITE.
        assert_eq!(ledger.proceed(id, 100, 2_000 * MS), None);
        assert_eq!(times(&mut ledger, 2_000, 40_000), []);
        // The BYE starts again with T1, and has at most T2.
        assert_eq!(ledger.hang_up(id, 40_000 * MS), None);
        let expected = [40_501, 41_502, 43_503, 47_504, 51_505];
        assert_eq!(times(&mut ledger, 40_000, 52_000), expected);
    }

    #[test]
    fn the_times_of_a_call_count_from_its_invite() {
        let mut ledger = Ledger::new(1, 5, Retransmit::AsUserAgent);
        let id = ledger.begin(0, 100);
        assert_eq!(ledger.proceed(id, 100, 110), None);
        assert_eq!(ledger.proceed(id, 180, 120), Some(20));
        assert_eq!(ledger.proceed(id, 180, 130), None);
        assert_eq!(ledger.hang_up(id, 150), Some(50));
        let latency_ns = Some(60);
        assert_eq!(
            ledger.settle(id, 160),
            Settled::First {
                slot: 0,
                latency_ns
            }
        );
        assert_eq!(ledger.proceed(id, 180, 170), None);
        assert_eq!(ledger.hang_up(id, 180), None);
    }
}
