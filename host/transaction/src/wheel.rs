//! A hierarchical timer wheel: arming, disarming and firing take constant time for any number of timers.
//!
//! The first level has 256 slots of one tick (10 ms), the second one 256 slots of 256 ticks (2.56 s). A later timer waits in the last slot and
//! is placed again when that one is reached. Timers of a slot form a list through one array, indexed by the timer's number.

use crate::chunks::Chunks;
use crate::time::Time;

/// Milliseconds of a tick: a timer fires at the first tick that is not before its time.
const TICK: u64 = 10;
const SLOTS: usize = 256;
const LEVELS: usize = 2;
/// The end of a list.
const NONE: u32 = u32::MAX;
/// The slot of a timer that is not armed.
const IDLE: u16 = u16::MAX;

/// Timers by number, one time each. Numbers should be small: they index an array.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// The present tick: all earlier ones have been handled.
    tick: u64,
    heads: Box<[u32; LEVELS * SLOTS]>,
    /// The slots that have timers, as bits.
    used: [[u64; SLOTS / 64]; LEVELS],
    timers: Chunks<Timer>,
    armed: usize,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    due: u64,
    previous: u32,
    next: u32,
    slot: u16,
}

impl Wheel {
    /// Sets the timer `number` to this time; a previous time is forgotten.
    pub(crate) fn arm(&mut self, number: u32, now: Time, at: Time) {
        self.disarm(number);
        if self.armed == 0 {
            // No slot has timers, so the ticks until now need no visit.
            self.tick = self.tick.max(now.as_millis() / TICK);
        }
        while self.timers.len() <= number as usize {
            self.timers.push(Timer::IDLE);
        }
        self.timer(number).due = at.as_millis().div_ceil(TICK).max(self.tick);
        self.link(number);
        self.armed += 1;
    }

    /// Stops the timer.
    pub(crate) fn disarm(&mut self, number: u32) {
        let is_armed = self
            .timers
            .element(number)
            .is_some_and(|timer| timer.slot != IDLE);
        if is_armed {
            self.unlink(number);
            self.armed -= 1;
        }
    }

    /// The time that the timer is set to, rounded up to the tick at which it fires.
    pub(crate) fn time_of(&self, number: u32) -> Option<Time> {
        let timer = self.timers.element(number)?;
        (timer.slot != IDLE).then(|| time_of(timer.due))
    }

    /// Whether no timer is armed.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// When [`Wheel::fire`] should be called next. It may be earlier than the first timer, which then comes closer.
    pub(crate) fn next(&self) -> Option<Time> {
        let near = self.first_used(0, self.tick);
        let block = self.tick / SLOTS as u64 + 1;
        let far = self.first_used(1, block).map(|block| block * SLOTS as u64);
        [near, far].into_iter().flatten().min().map(time_of)
    }

    /// Disarms a timer that is due and returns its number; `None` when no timer is due any more.
    pub(crate) fn fire(&mut self, now: Time) -> Option<u32> {
        let last = now.as_millis() / TICK;
        loop {
            let first = self.heads[self.tick as usize % SLOTS];
            if first != NONE && self.tick <= last {
                self.unlink(first);
                self.armed -= 1;
                return Some(first);
            }
            if self.tick >= last {
                return None;
            }
            self.advance(last);
        }
    }

    /// Goes to the next tick that has timers, at most to `last` and to the end of this block.
    fn advance(&mut self, last: u64) {
        let block_end = (self.tick / SLOTS as u64 + 1) * SLOTS as u64;
        let next = self.first_used(0, self.tick + 1).unwrap_or(u64::MAX);
        self.tick = next.min(last).min(block_end);
        if self.armed == 0 {
            self.tick = last;
            return;
        }
        if self.tick == block_end {
            self.spread(block_end / SLOTS as u64);
        }
    }

    /// Moves the timers of a block to the first level.
    fn spread(&mut self, block: u64) {
        let slot = SLOTS + block as usize % SLOTS;
        while self.heads[slot] != NONE {
            let number = self.heads[slot];
            self.unlink(number);
            self.link(number);
        }
    }

    /// The first slot of a level that has timers, as a tick or block that is not before `from`.
    fn first_used(&self, level: usize, from: u64) -> Option<u64> {
        let used = &self.used[level];
        let start = from as usize % SLOTS;
        let words = SLOTS / 64;
        // The word of the start is visited twice: first for the bits from the start on, at last for those before it.
        (0..=words).find_map(|step| {
            let word = (start / 64 + step) % words;
            let mask = match step {
                0 => u64::MAX << (start % 64),
                _ if step == words => !(u64::MAX << (start % 64)),
                _ => u64::MAX,
            };
            let bits = used[word] & mask;
            let slot = word * 64 + bits.trailing_zeros() as usize;
            (bits != 0).then(|| from + ((slot + SLOTS - start) % SLOTS) as u64)
        })
    }

    fn link(&mut self, number: u32) {
        let due = self.timer(number).due;
        let slot = self.slot_for(due);
        let head = std::mem::replace(&mut self.heads[slot], number);
        let timer = self.timer(number);
        (timer.previous, timer.next, timer.slot) = (NONE, head, slot as u16);
        if head != NONE {
            self.timer(head).previous = number;
        }
        self.used[slot / SLOTS][slot % SLOTS / 64] |= 1 << (slot % 64);
    }

    fn unlink(&mut self, number: u32) {
        let Timer {
            previous,
            next,
            slot,
            ..
        } = *self.timer(number);
        let slot = usize::from(slot);
        match previous {
            NONE => self.heads[slot] = next,
            previous => self.timer(previous).next = next,
        }
        if next != NONE {
            self.timer(next).previous = previous;
        }
        if self.heads[slot] == NONE {
            self.used[slot / SLOTS][slot % SLOTS / 64] &= !(1 << (slot % 64));
        }
        self.timer(number).slot = IDLE;
    }

    /// A timer that was armed before.
    fn timer(&mut self, number: u32) -> &mut Timer {
        self.timers.element_mut(number).expect("it was armed")
    }

    fn slot_for(&self, due: u64) -> usize {
        if due - self.tick < SLOTS as u64 {
            return due as usize % SLOTS;
        }
        let now = self.tick / SLOTS as u64;
        let block = (due / SLOTS as u64).min(now + SLOTS as u64 - 1);
        SLOTS + block as usize % SLOTS
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            tick: 0,
            heads: Box::new([NONE; LEVELS * SLOTS]),
            used: Default::default(),
            timers: Chunks::default(),
            armed: 0,
        }
    }
}

impl Timer {
    const IDLE: Self = Self {
        due: 0,
        previous: NONE,
        next: NONE,
        slot: IDLE,
    };
}

fn time_of(tick: u64) -> Time {
    Time::from_millis(tick.saturating_mul(TICK))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Numbers of all timers that fire.
    fn fired(wheel: &mut Wheel, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| wheel.fire(Time::from_millis(now))).collect()
    }

    #[test]
    fn a_timer_fires_at_its_tick_and_once() {
        let mut wheel = Wheel::default();
        wheel.arm(3, Time::ZERO, Time::from_millis(500));
        assert_eq!(wheel.next(), Some(Time::from_millis(500)));
        assert!(fired(&mut wheel, 499).is_empty());
        assert_eq!(fired(&mut wheel, 500), [3]);
        assert!(fired(&mut wheel, 10_000).is_empty());
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_timer_that_is_set_again_has_the_new_time_only() {
        let mut wheel = Wheel::default();
        wheel.arm(0, Time::ZERO, Time::from_millis(100));
        wheel.arm(0, Time::ZERO, Time::from_millis(600_000));
        assert!(fired(&mut wheel, 599_999).is_empty());
        assert_eq!(fired(&mut wheel, 600_000), [0]);
    }

    #[test]
    fn the_first_timer_is_near_whatever_the_time() {
        let now = 1_764_410_400_000;
        let mut wheel = Wheel::default();
        wheel.arm(0, Time::from_millis(now), Time::from_millis(now + 500));
        assert_eq!(wheel.next(), Some(Time::from_millis(now + 500)));
        assert_eq!(wheel.fire(Time::from_millis(now + 499)), None);
        assert_eq!(wheel.fire(Time::from_millis(now + 500)), Some(0));
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_timer_of_the_past_fires_at_once() {
        let mut wheel = Wheel::default();
        assert!(fired(&mut wheel, 5_000).is_empty());
        wheel.arm(7, Time::ZERO, Time::from_millis(1));
        assert_eq!(wheel.next(), Some(Time::from_millis(5_000)));
        assert_eq!(fired(&mut wheel, 5_000), [7]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u32, u64),
        Disarm(u32),
        Go(u64),
        GoToNext,
    }

    fn step() -> impl Strategy<Value = Step> {
        let number = 0..12_u32;
        let away = prop_oneof![0..200_u64, 0..9_000_u64, 0..2_000_000_u64];
        prop_oneof![
            (number.clone(), away.clone()).prop_map(|(number, away)| Step::Arm(number, away)),
            number.prop_map(Step::Disarm),
            away.prop_map(Step::Go),
            Just(Step::GoToNext),
        ]
    }

    proptest! {
        #[test]
        fn timers_fire_as_from_a_sorted_list(steps in prop::collection::vec(step(), 0..60)) {
            let mut wheel = Wheel::default();
            let mut model = BTreeMap::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Arm(number, away) => {
                        wheel.arm(number, Time::from_millis(now), Time::from_millis(now + away));
                        model.insert(number, (now + away).div_ceil(TICK).max(now / TICK));
                    }
                    Step::Disarm(number) => {
                        wheel.disarm(number);
                        model.remove(&number);
                    }
                    Step::Go(away) => now += away,
                    Step::GoToNext => now = wheel.next().map_or(now, |next| next.as_millis().max(now)),
                }
                let mut due: Vec<u32> = model.iter().filter(|(_, due)| **due <= now / TICK).map(|(number, _)| *number).collect();
                due.iter().for_each(|number| { model.remove(number); });
                let mut found = fired(&mut wheel, now);
                found.sort_unstable();
                due.sort_unstable();
                prop_assert_eq!(found, due);
                prop_assert_eq!(wheel.is_empty(), model.is_empty());
                let first = model.values().min().map(|due| due * TICK);
                let next = wheel.next().map(Time::as_millis);
                prop_assert_eq!(next.is_none(), first.is_none());
                prop_assert!(next <= first, "{next:?} is later than {first:?}");
            }
        }
    }
}
