//! How many a second.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::second::SECOND;

/// Counts what happens in each second, up to 65,535.
#[derive(Debug, Default)]
pub struct Meter(
    /// The second, the count of the second before and the count of this one: 32, 16 and 16 bits.
    AtomicU64,
);

impl Meter {
    /// Counts one.
    #[inline]
    pub fn note(&self, now: u64) {
        let second = second_of(now);
        let next = |counts: u64| {
            let (last, before, current) = unpack(counts);
            let counts = match second.wrapping_sub(last) {
                0 => pack(last, before, current.saturating_add(1)),
                1 => pack(second, current, 1),
                // The clock reading of another worker may be slightly older.
                u32::MAX => pack(last, before.saturating_add(1), current),
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
        match second_of(now).wrapping_sub(last) {
            0 => before.into(),
            1 => current.into(),
            _ => 0,
        }
    }
}

fn second_of(now: u64) -> u32 {
    (now / SECOND) as u32
}

fn pack(second: u32, before: u16, current: u16) -> u64 {
    u64::from(second) << 32 | u64::from(before) << 16 | u64::from(current)
}

fn unpack(counts: u64) -> (u32, u16, u16) {
    ((counts >> 32) as u32, (counts >> 16) as u16, counts as u16)
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

    #[test]
    fn a_count_has_an_end() {
        let meter = Meter::default();
        (0..70_000).for_each(|_| meter.note(0));
        assert_eq!(meter.last(SECOND), 65_535);
    }
}
