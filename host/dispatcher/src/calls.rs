//! Calls to destinations, counted for the algorithm `call-load`. Workers count them without a lock.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use portcullis_sip::mark;
use siphasher::sip::SipHasher13;

use crate::member::Member;
use crate::sets::Sets;

/// Slots in which a call may be.
const WINDOW: usize = 32;

/// The key of a slot without a call.
const FREE: u64 = 0;
/// The key of a slot that is being changed.
const BUSY: u64 = 1;

/// The calls that are counted now. Each is counted once, and ends once.
#[derive(Debug)]
pub struct Calls {
    /// A power of two.
    slots: Box<[Slot]>,
    /// The secret of the hash, so that nobody chooses the place of a call.
    secret: [AtomicU64; 2],
    /// Whether the hosts of a fleet have the same secret.
    is_shared: AtomicBool,
    counted: AtomicU64,
    uncounted: AtomicU64,
}

/// What a call is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallKey(u64);

/// A call that is counted, in the form in which another process gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedCall {
    /// What it is counted by, under the secret.
    pub key: u64,
    /// The mark of the destination.
    pub mark: u64,
    /// When it counts as ended, in seconds since 1970.
    pub until: u64,
}

/// A call. Whoever replaces the key by [`BUSY`] owns the other fields until they replace it again.
#[derive(Debug, Default)]
struct Slot {
    key: AtomicU64,
    /// The mark of the destination.
    mark: AtomicU64,
    /// When the call counts as ended, in seconds since 1970.
    until: AtomicU64,
}

impl Calls {
    /// Room for at least this many calls. 24 bytes each.
    pub fn new(most: usize) -> Self {
        let slots = most.max(WINDOW).next_power_of_two();
        Self {
            slots: (0..slots).map(|_| Slot::default()).collect(),
            secret: [0, 1].map(|part| AtomicU64::new(RandomState::new().hash_one(part))),
            is_shared: AtomicBool::new(false),
            counted: AtomicU64::new(0),
            uncounted: AtomicU64::new(0),
        }
    }

    /// Number of calls that are counted now.
    pub fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// Number of calls that were not counted, because there was no room.
    pub fn uncounted(&self) -> u64 {
        self.uncounted.load(Ordering::Relaxed)
    }

    /// Counts a call that a destination has accepted, until this second at the latest. A call that is counted already is not counted again.
    pub fn begin(&self, call: CallKey, member: &Member, until: u64) {
        let CallKey(key) = call;
        let mut free = None;
        for slot in self.window(key) {
            match slot.key.load(Ordering::Acquire) {
                found if found == key => return,
                FREE if free.is_none() => free = Some(slot),
                _ => {}
            }
        }
        let others = self.window(key);
        let taken = free.into_iter().chain(others).find(|slot| slot.take(FREE));
        let Some(slot) = taken else {
            self.uncounted.fetch_add(1, Ordering::Relaxed);
            return;
        };
        slot.mark.store(mark(&member.name), Ordering::Relaxed);
        slot.until.store(until, Ordering::Relaxed);
        member.load.add_call();
        self.counted.fetch_add(1, Ordering::Relaxed);
        slot.key.store(key, Ordering::Release);
    }

    /// Ends a call. Returns whether it was counted.
    pub fn end(&self, call: CallKey, sets: &Sets) -> bool {
        if self.counted() == 0 {
            return false;
        }
        let CallKey(key) = call;
        let mut was_counted = false;
        for slot in self.window(key) {
            if slot.take(key) {
                self.give_back(slot, sets);
                was_counted = true;
            }
        }
        was_counted
    }

    /// Gives the keys of calls this secret, which the other hosts of the fleet have, too. Before the first call.
    pub(crate) fn share(&self, secret: [u64; 2]) {
        self.set_secret(secret);
        self.is_shared.store(true, Ordering::Relaxed);
    }

    /// Ends the calls whose time is over: their BYE has never come. For the control side.
    pub fn expire(&self, now: u64, sets: &Sets) {
        for slot in &self.slots {
            let key = slot.key.load(Ordering::Acquire);
            let is_call = key != FREE && key != BUSY;
            if is_call && slot.until.load(Ordering::Relaxed) <= now && slot.take(key) {
                match slot.until.load(Ordering::Relaxed) <= now {
                    true => self.give_back(slot, sets),
                    false => slot.key.store(key, Ordering::Release),
                }
            }
        }
    }

    /// Frees a slot that this thread has taken.
    fn give_back(&self, slot: &Slot, sets: &Sets) {
        let mark = slot.mark.load(Ordering::Relaxed);
        if let Some(load) = sets.load_of_mark(mark) {
            load.remove_call();
        }
        self.counted.fetch_sub(1, Ordering::Relaxed);
        slot.key.store(FREE, Ordering::Release);
    }

    /// What the call with this Call-ID is counted by.
    pub fn key(&self, call_id: &[u8]) -> CallKey {
        let [first, second] = self.secret();
        let hash = SipHasher13::new_with_keys(first, second).hash(call_id);
        CallKey(hash.max(BUSY + 1))
    }

    /// The secret of the hash in their keys.
    pub fn secret(&self) -> [u64; 2] {
        self.secret
            .each_ref()
            .map(|part| part.load(Ordering::Relaxed))
    }

    /// All calls that are counted now, for another process.
    pub fn all(&self) -> Vec<CountedCall> {
        let counted = self.slots.iter().filter_map(|slot| {
            let key = slot.key.load(Ordering::Acquire);
            if key == FREE || key == BUSY || !slot.take(key) {
                return None;
            }
            let mark = slot.mark.load(Ordering::Relaxed);
            let until = slot.until.load(Ordering::Relaxed);
            slot.key.store(key, Ordering::Release);
            Some(CountedCall { key, mark, until })
        });
        counted.collect()
    }

    /// Counts the calls of another process, whose keys have this secret. Without effect with another secret than that of this process, once this process
    /// has counted a call of its own, or if its secret is that of a fleet.
    pub fn adopt(&self, secret: [u64; 2], calls: &[CountedCall], sets: &Sets) {
        let must_stay = self.counted() > 0 || self.is_shared.load(Ordering::Relaxed);
        if must_stay && self.secret() != secret {
            return;
        }
        self.set_secret(secret);
        for call in calls.iter().filter(|call| call.key > BUSY) {
            if let Some(member) = sets.member_of_mark(call.mark) {
                self.begin(CallKey(call.key), member, call.until);
            }
        }
    }

    fn set_secret(&self, secret: [u64; 2]) {
        for (part, value) in self.secret.iter().zip(secret) {
            part.store(value, Ordering::Relaxed);
        }
    }

    fn window(&self, key: u64) -> impl Iterator<Item = &Slot> {
        let mask = self.slots.len() - 1;
        let start = key as usize;
        (0..WINDOW).map(move |step| &self.slots[start.wrapping_add(step) & mask])
    }
}

impl CallKey {
    /// As a number that is never 0.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// The key with this number.
    pub(crate) fn of_number(number: u64) -> Self {
        Self(number.max(BUSY + 1))
    }
}

impl Slot {
    /// Takes the slot if it has this key.
    fn take(&self, key: u64) -> bool {
        let taken = self
            .key
            .compare_exchange(key, BUSY, Ordering::Acquire, Ordering::Relaxed);
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::row::DispatcherRow;
    use crate::sets::Rows;

    fn sets(members: u8) -> Sets {
        let rows = (0..members).map(|number| {
            let destination = format!("sip:192.0.2.{number}");
            let row = DispatcherRow {
                id: 0,
                setid: 1,
                destination: &destination,
                flags: 0,
                priority: 0,
                attrs: "",
                description: "",
            };
            row.parts().unwrap().0
        });
        let rows = Rows {
            rows: rows.collect(),
            ..Rows::default()
        };
        Sets::new(rows, &Sets::default(), Duration::ZERO)
    }

    fn loads(sets: &Sets) -> Vec<u32> {
        sets.members().map(Member::calls).collect()
    }

    proptest! {
        #[test]
        fn each_call_is_counted_once_and_ends_once(
            steps in prop::collection::vec((0_u8..12, 0_usize..3, 0_u8..3), 0..200),
        ) {
            let sets = sets(3);
            let members: Vec<_> = sets.members().collect();
            let calls = Calls::new(64);
            let mut model: HashMap<u8, (usize, u64)> = HashMap::new();
            for (now, (call, member, what)) in (1_u64..).zip(steps) {
                let call_id = [call];
                match what {
                    0 => {
                        calls.begin(calls.key(&call_id), members[member], now + 20);
                        model.entry(call).or_insert((member, now + 20));
                    }
                    1 => {
                        calls.end(calls.key(&call_id), &sets);
                        model.remove(&call);
                    }
                    _ => {
                        calls.expire(now, &sets);
                        model.retain(|_, (_, until)| *until > now);
                    }
                }
                let mut expected = vec![0; 3];
                model.values().for_each(|&(member, _)| expected[member] += 1);
                prop_assert_eq!(loads(&sets), expected);
                prop_assert_eq!(calls.counted(), model.len() as u64);
            }
        }
    }

    #[test]
    fn workers_count_together() {
        let sets = Arc::new(sets(4));
        let calls = Arc::new(Calls::new(4_096));
        std::thread::scope(|scope| {
            for worker in 0..4_u32 {
                let (sets, calls) = (&sets, &calls);
                scope.spawn(move || {
                    for round in 0..2_000_u32 {
                        let call_id = (worker * 10_000 + round).to_be_bytes();
                        let member = sets.members().nth(round as usize % 4).unwrap();
                        calls.begin(calls.key(&call_id), member, 9);
                        // Another worker ends it, too: a BYE that was sent twice.
                        let other = ((worker + 1) % 4 * 10_000 + round).to_be_bytes();
                        calls.end(calls.key(&other), sets);
                        calls.end(calls.key(&call_id), sets);
                    }
                });
            }
        });
        assert_eq!((loads(&sets), calls.counted()), (vec![0; 4], 0));
        assert_eq!(calls.uncounted(), 0);
    }

    #[test]
    fn a_call_without_room_is_told() {
        let sets = sets(1);
        let member = sets.members().next().unwrap();
        let calls = Calls::new(1);
        (0..40_u8).for_each(|call| calls.begin(calls.key(&[call]), member, 9));
        assert_eq!((calls.counted(), calls.uncounted()), (32, 8));
        assert_eq!(loads(&sets), [32]);
    }

    #[test]
    fn another_process_goes_on_with_the_calls() {
        let (before, after) = (sets(3), sets(2));
        let (old, new) = (Calls::new(64), Calls::new(64));
        for (call_id, member) in (b'a'..).zip(before.members()) {
            old.begin(old.key(&[call_id]), member, 9);
        }
        new.adopt(old.secret(), &old.all(), &after);
        assert_eq!(old.counted(), 3, "they are still counted there");
        assert_eq!(new.counted(), 2, "one has no destination any more");
        assert_eq!(loads(&after), [1, 1]);
        // Twice is once.
        new.adopt(old.secret(), &old.all(), &after);
        assert_eq!(loads(&after), [1, 1]);
        for call_id in b'a'..=b'c' {
            new.end(new.key(&[call_id]), &after);
        }
        assert_eq!((new.counted(), loads(&after)), (0, vec![0, 0]));
        // The secret of a process that counts already stays.
        let other = Calls::new(64);
        other.begin(other.key(b"x"), after.members().next().unwrap(), 9);
        other.adopt(old.secret(), &old.all(), &after);
        assert!(other.end(other.key(b"x"), &after));
        assert_eq!(other.counted(), 0);
    }

    #[test]
    fn a_call_to_a_destination_that_is_gone_ends_too() {
        let before = sets(2);
        let calls = Calls::new(64);
        let last = before.members().last().unwrap();
        calls.begin(calls.key(b"a"), last, 9);
        assert!(calls.end(calls.key(b"a"), &sets(0)));
        assert!(!calls.end(calls.key(b"a"), &sets(0)));
        assert_eq!(calls.counted(), 0);
    }
}
