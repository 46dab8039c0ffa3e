//! A balance of bytes: what has come in may go out again, and a small allowance beside it.

#[cfg(all(test, loom))]
use loom::sync::atomic::AtomicU64;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::second::SECOND;

/// What may go out beside what has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Bytes at once.
    pub bytes: u32,
    /// Bytes that come back each second; fewer than [`Allowance::FEWEST`] count as none.
    pub per_second: u32,
    /// Most bytes that have come in and are kept for later, above `bytes`.
    pub kept: u32,
}

/// Bytes that may go out. For every stretch of time: the bytes that have gone out are at most those that have come in before or meanwhile, plus
/// the allowance, plus what of it comes back in that time.
#[derive(Debug, Default)]
pub struct Balance(
    /// The tick of the last change, counted from 1, and the balance then: 32 bits each. 0 before the first change.
    AtomicU64,
);

/// Ticks in a second.
const TICKS: u64 = 16;

impl Allowance {
    /// Fewest bytes per second that come back.
    pub const FEWEST: u32 = TICKS as u32;
}

impl Balance {
    /// Notes bytes that have come in.
    #[inline]
    pub fn receive(&self, now: u64, bytes: u32, allowed: &Allowance) {
        let most = allowed.bytes.saturating_add(allowed.kept);
        let _always = self.change(now, allowed, |balance| {
            Some(balance.saturating_add(bytes).min(most))
        });
    }

    /// Restores a part of the allowance, up to the whole of it.
    #[inline]
    pub fn restore(&self, now: u64, bytes: u32, allowed: &Allowance) {
        let _always = self.change(now, allowed, |balance| {
            let more = balance.saturating_add(bytes).min(allowed.bytes);
            Some(more.max(balance))
        });
    }

    /// Takes bytes that are to go out; false, and takes none, if there are too few.
    #[inline]
    pub fn spend(&self, now: u64, bytes: u32, allowed: &Allowance) -> bool {
        self.change(now, allowed, |balance| balance.checked_sub(bytes))
    }

    /// Bytes that may go out now.
    pub fn left(&self, now: u64, allowed: &Allowance) -> u32 {
        unpack(self.0.load(Ordering::Relaxed), tick(now), allowed).1
    }

    fn change(
        &self,
        now: u64,
        allowed: &Allowance,
        mut next: impl FnMut(u32) -> Option<u32>,
    ) -> bool {
        let tick = tick(now);
        let next = |packed: u64| {
            let (at, balance) = unpack(packed, tick, allowed);
            Some(u64::from(at) << 32 | u64::from(next(balance)?))
        };
        let changed = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        changed.is_ok()
    }
}

fn tick(now: u64) -> u32 {
    let tick = now / (SECOND / TICKS);
    u32::try_from(tick).unwrap_or(u32::MAX).saturating_add(1)
}

/// The tick and the balance now. The clock reading of another worker may be older: time never goes back.
#[inline]
fn unpack(packed: u64, now: u32, allowed: &Allowance) -> (u32, u32) {
    if packed == 0 {
        return (now, allowed.bytes);
    }
    let (at, balance) = ((packed >> 32) as u32, packed as u32);
    let elapsed = now.saturating_sub(at);
    let more = u64::from(elapsed) * u64::from(allowed.per_second) / TICKS;
    let more = u32::try_from(more).unwrap_or(u32::MAX);
    let grown = balance.saturating_add(more).min(allowed.bytes);
    (at.max(now), grown.max(balance))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const ALLOWED: Allowance = Allowance {
        bytes: 1_000,
        per_second: 160,
        kept: 500,
    };

    #[test]
    fn the_allowance_is_there_at_once_and_comes_back_slowly() {
        let balance = Balance::default();
        assert!(balance.spend(0, 1_000, &ALLOWED));
        assert!(!balance.spend(0, 1, &ALLOWED));
        assert!(!balance.spend(SECOND, 161, &ALLOWED));
        assert!(balance.spend(SECOND, 160, &ALLOWED));
        assert!(balance.spend(1_000 * SECOND, 1_000, &ALLOWED));
        assert!(!balance.spend(1_000 * SECOND, 1, &ALLOWED));
    }

    #[test]
    fn what_has_come_in_may_go_out_and_some_of_it_is_kept() {
        let balance = Balance::default();
        balance.receive(0, 10_000, &ALLOWED);
        assert_eq!(balance.left(0, &ALLOWED), 1_500);
        // Time adds nothing above the allowance.
        assert_eq!(balance.left(100 * SECOND, &ALLOWED), 1_500);
        assert!(balance.spend(0, 1_500, &ALLOWED));
        balance.receive(0, 300, &ALLOWED);
        assert!(balance.spend(0, 300, &ALLOWED) && !balance.spend(0, 1, &ALLOWED));
    }

    #[test]
    fn restoring_goes_up_to_the_allowance_and_takes_nothing() {
        let balance = Balance::default();
        balance.receive(0, 200, &ALLOWED);
        balance.restore(0, 700, &ALLOWED);
        assert_eq!(balance.left(0, &ALLOWED), 1_200);
        assert!(balance.spend(0, 1_200, &ALLOWED));
        balance.restore(0, 700, &ALLOWED);
        assert_eq!(balance.left(0, &ALLOWED), 700);
        balance.restore(0, 700, &ALLOWED);
        assert_eq!(balance.left(0, &ALLOWED), 1_000);
    }

    #[test]
    fn an_older_reading_of_the_clock_gives_nothing() {
        let balance = Balance::default();
        assert!(balance.spend(10 * SECOND, 1_000, &ALLOWED));
        assert!(!balance.spend(9 * SECOND, 1, &ALLOWED));
        assert!(!balance.spend(10 * SECOND, 1, &ALLOWED));
    }
}
