//! How many a second.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::second::SECOND;

/// Counts what happens in each second, up to [`Meter::MOST`].
#[derive(Debug, Default)]
pub struct Meter(
    /// The second, the count of the second before and the count of this one: 20, 22 and 22 bits. Seconds begin anew after twelve days: who was not seen for
    /// exactly that time is taken for one that was seen now.
    AtomicU64,
);

const SECOND_BITS: u32 = 20;
const COUNT_BITS: u32 = 22;
const SECONDS: u32 = (1 << SECOND_BITS) - 1;

/// The difference to a second from the one before it.
const EARLIER: u32 = SECONDS;

impl Meter {
    /// The largest number in a second, 4,194,303: more than a host can receive.
    pub const MOST: u32 = (1 << COUNT_BITS) - 1;

    /// Counts one.
    #[inline]
    pub fn note(&self, now: u64) {
        let second = second_of(now);
        let next = |counts: u64| {
            let (last, before, current) = unpack(counts);
            let counts = match since(last, second) {
                0 => pack(last, before, one_more(current)),
                1 => pack(second, current, 1),
                // The clock reading of another worker may be slightly older.
                EARLIER => pack(last, one_more(before), current),
                _ => pack(second, 0, 1),
            };
            Some(counts)
        };
        let _always = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// The number in the last whole second.
    pub fn last(&self, now: u64) -> u32 {
        let (last, before, current) = unpack(self.0.load(Ordering::Relaxed));
        match since(last, second_of(now)) {
            0 => before,
            1 => current,
            _ => 0,
        }
    }
}

fn second_of(now: u64) -> u32 {
    (now / SECOND) as u32 & SECONDS
}

/// Seconds from this one to that one.
fn since(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from) & SECONDS
}

fn one_more(count: u32) -> u32 {
    (count + 1).min(Meter::MOST)
}

fn pack(second: u32, before: u32, current: u32) -> u64 {
    u64::from(second) << (2 * COUNT_BITS) | u64::from(before) << COUNT_BITS | u64::from(current)
}

fn unpack(counts: u64) -> (u32, u32, u32) {
    let count = |bits: u64| bits as u32 & Meter::MOST;
    let second = (counts >> (2 * COUNT_BITS)) as u32;
    (second, count(counts >> COUNT_BITS), count(counts))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_second_counts() {
        let meter = Meter::default();
        assert_eq!(meter.last(0), 0);
        (0..7).for_each(|_| meter.note(SECOND / 2));
        assert_eq!(meter.last(SECOND - 1), 0, "the second is not over");
        assert_eq!(meter.last(SECOND), 7);
        (0..3).for_each(|_| meter.note(SECOND));
        assert_eq!(meter.last(SECOND), 7);
        meter.note(SECOND - 1);
        assert_eq!(meter.last(SECOND), 8, "of a worker with an older clock");
        assert_eq!(meter.last(2 * SECOND), 3);
        assert_eq!(meter.last(3 * SECOND), 0);
        meter.note(9 * SECOND);
        assert_eq!((meter.last(9 * SECOND), meter.last(10 * SECOND)), (0, 1));
    }

    /// More than fit in 16 bits: a trunk with much traffic.
    #[test]
    fn a_count_has_an_end_that_nobody_reaches() {
        let meter = Meter::default();
        (0..70_000).for_each(|_| meter.note(0));
        assert_eq!(meter.last(SECOND), 70_000);
        (0..3).for_each(|_| meter.note(SECOND));
        assert_eq!(meter.last(SECOND), 70_000);
        assert_eq!(meter.last(2 * SECOND), 3);

        let meter = Meter(AtomicU64::new(pack(1, Meter::MOST - 1, Meter::MOST - 1)));
        (0..3).for_each(|_| meter.note(SECOND));
        (0..3).for_each(|_| meter.note(SECOND - 1));
        assert_eq!(meter.last(SECOND), Meter::MOST);
        assert_eq!(meter.last(2 * SECOND), Meter::MOST);
    }

    #[test]
    fn seconds_begin_anew_without_a_gap() {
        let meter = Meter::default();
        let last = u64::from(SECONDS) * SECOND;
        (0..5).for_each(|_| meter.note(last));
        (0..2).for_each(|_| meter.note(last + SECOND));
        meter.note(last);
        assert_eq!(meter.last(last + SECOND), 6);
        assert_eq!(meter.last(last + 2 * SECOND), 2);
        assert_eq!(meter.last(last + 3 * SECOND), 0);
    }
}
