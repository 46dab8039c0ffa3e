//! A rate limiter of one number.

#[cfg(all(test, loom))]
use loom::sync::atomic::AtomicU64;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// A rate limiter by the generic cell rate algorithm (ITU-T I.371). It stores one value, the theoretical arrival time.
#[derive(Debug, Default)]
pub struct Due(AtomicU64);

impl Due {
    /// Takes one unit of `each` nanoseconds, unless the result would be more than `ahead` of now.
    #[inline]
    pub fn take(&self, now: u64, each: u64, ahead: u64) -> bool {
        let next = |due: u64| {
            let due = due.max(now).saturating_add(each);
            (due - now <= ahead).then_some(due)
        };
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.is_ok()
    }

    /// Takes one unit unconditionally.
    #[inline]
    pub fn charge(&self, now: u64, each: u64) {
        let next = |due: u64| Some(due.max(now).saturating_add(each));
        let _always = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// As [`Due::charge`], but never further ahead than `most`. Of two concurrent calls, one may be lost.
    #[inline]
    pub fn charge_within(&self, now: u64, each: u64, most: u64) {
        let due = self.0.load(Ordering::Relaxed).max(now);
        let due = due.saturating_add(each).min(now.saturating_add(most));
        self.0.store(due, Ordering::Relaxed);
    }

    /// Returns one unit that was taken.
    #[inline]
    pub fn give_back(&self, each: u64) {
        let next = |due: u64| Some(due.saturating_sub(each));
        let _always = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// Returns all units that were taken.
    #[inline]
    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// How far ahead of now the theoretical arrival time is, in nanoseconds.
    #[inline]
    pub fn ahead(&self, now: u64) -> u64 {
        self.0.load(Ordering::Relaxed).saturating_sub(now)
    }

    /// Lets the theoretical arrival time be no further ahead of now than `most`.
    #[inline]
    pub fn keep_within(&self, now: u64, most: u64) {
        self.0
            .fetch_min(now.saturating_add(most), Ordering::Relaxed);
    }
}
