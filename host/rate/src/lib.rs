//! Rate limiters, the number of their users, overload control, and notes for the control side: numbers that all workers change without a lock.
//!
//! Time is a parameter. The meaning of what is counted is up to the caller.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod balance;
mod due;
mod journal;
mod load;
mod meter;
mod second;
mod throttle;

#[cfg(all(test, loom))]
use loom::sync::atomic::AtomicU64;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub use balance::{Allowance, Balance};
pub use due::Due;
pub use journal::{Journal, Noted};
pub use load::{FairRate, Load};
pub use meter::Meter;
pub use second::SECOND;
pub use throttle::{Limit, Order, Throttle, Weight};

/// Time for which a user counts after it was last seen.
const WINDOW: u64 = SECOND;

/// The clock shared by the users of a rate: nanoseconds since its start.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

/// The number of active users: those seen in the current time window or in the previous one, whichever are more.
#[derive(Debug, Default)]
pub struct Active {
    /// The window, the count of the previous window and the count of this one: 32, 16 and 16 bits.
    seen: AtomicU64,
}

/// The window in which a user was last seen.
#[derive(Debug, Default)]
pub struct Seen(AtomicU64);

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self::starting(Instant::now())
    }

    /// A clock that starts at this time.
    pub fn starting(begun: Instant) -> Self {
        Self(begun)
    }

    /// Nanoseconds since the start.
    #[inline]
    pub fn at(self, now: Instant) -> u64 {
        nanoseconds(now.saturating_duration_since(self.0))
    }

    /// The start.
    pub fn begun(self) -> Instant {
        self.0
    }
}

impl Active {
    /// The number of users, at least one.
    #[inline]
    pub fn count(&self, now: u64) -> u64 {
        let (window, before, current) = unpack(self.seen.load(Ordering::Relaxed));
        let most = match (window_of(now)).wrapping_sub(window) {
            0 => before.max(current),
            1 => current,
            _ => 0,
        };
        most.max(1)
    }

    /// Counts a user, if it has not been seen in this window.
    #[inline]
    pub fn meet(&self, one: &Seen, now: u64) {
        let window = window_of(now);
        // From 1, so that window 0 means a user that was never seen.
        let mark = u64::from(window) + 1;
        if one.0.swap(mark, Ordering::Relaxed) != mark {
            self.add(window);
        }
    }

    /// Counts a user that has not been seen in this window.
    #[inline]
    pub fn add(&self, window: u32) {
        let next = |seen: u64| {
            let (last, before, current) = unpack(seen);
            let (before, current) = match window.wrapping_sub(last) {
                0 => (before, current),
                1 => (current, 0),
                // The clock reading of another worker may be slightly older.
                u32::MAX => return None,
                _ => (0, 0),
            };
            let current = (current + 1).min(u64::from(u16::MAX));
            Some(u64::from(window) << 32 | before << 16 | current)
        };
        let _old_reading = self
            .seen
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

/// The number of the window at this time.
#[inline]
pub fn window_of(now: u64) -> u32 {
    (now / WINDOW) as u32
}

/// Nanoseconds per unit at this rate per second.
pub fn each(per_second: u32) -> u64 {
    SECOND / u64::from(per_second.max(1))
}

/// As a number of nanoseconds, saturating after centuries.
#[inline]
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn unpack(seen: u64) -> (u32, u64, u64) {
    ((seen >> 32) as u32, seen >> 16 & 0xffff, seen & 0xffff)
}

#[cfg(all(test, loom))]
mod models;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_enforced_and_charges_count() {
        let due = Due::default();
        let each = each(10);
        let taken = |now| (0..20).filter(|_| due.take(now, each, 5 * each)).count();
        assert_eq!(taken(0), 5);
        assert_eq!(taken(each), 1);
        assert_eq!(taken(SECOND), 5);
        (0..10).for_each(|_| due.charge(SECOND, each));
        assert_eq!(due.ahead(SECOND), 15 * each);
        assert_eq!(taken(2 * SECOND), 0);
        assert_eq!(taken(3 * SECOND), 5);
    }

    #[test]
    fn users_are_counted_while_they_are_seen() {
        let active = Active::default();
        let all: Vec<_> = (0..7).map(|_| Seen::default()).collect();
        assert_eq!(active.count(0), 1, "the caller counts as one");
        for _ in 0..3 {
            all.iter().for_each(|one| active.meet(one, 5));
        }
        assert_eq!(active.count(5), 7);
        all[..2].iter().for_each(|one| active.meet(one, SECOND));
        assert_eq!(active.count(SECOND), 7, "the previous window still counts");
        assert_eq!(active.count(2 * SECOND), 2);
        assert_eq!(active.count(4 * SECOND), 1);
        all.iter().for_each(|one| active.meet(one, 9 * SECOND));
        assert_eq!(active.count(9 * SECOND), 7);
    }
}
