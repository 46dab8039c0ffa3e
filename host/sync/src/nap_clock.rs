//! A count of ticks that one thread advances and others read, also while that thread naps for several ticks.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::primitives::AtomicU64;

/// Counts ticks. One thread, the clock, waits for one or several ticks at a time and then counts them; a wait for several is a nap.
///
/// Time is a parameter: the time since a moment that is the same for all threads.
#[derive(Debug)]
pub struct NapClock {
    tick: Duration,
    /// Ticks that have passed. Behind by less than `nap` while the clock waits.
    ticks: AtomicU64,
    /// Length of the current nap in ticks; 1 between naps.
    nap: AtomicU64,
    /// When the nap began, in nanoseconds.
    napping_since: AtomicU64,
}

/// A wait of the clock that has begun.
#[derive(Debug)]
#[must_use]
pub struct Nap {
    ticks: u64,
    since: Duration,
}

impl NapClock {
    /// No tick of this length has passed.
    pub fn new(tick: Duration) -> Self {
        Self {
            tick,
            ticks: AtomicU64::new(0),
            nap: AtomicU64::new(1),
            napping_since: AtomicU64::new(0),
        }
    }

    /// Number of ticks so far, without the elapsed part of a nap.
    #[inline]
    pub fn counted(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Number of ticks so far, including the elapsed part of a nap. Reads the time only during a nap.
    #[inline]
    pub fn passed(&self, time: impl FnOnce() -> Duration) -> u64 {
        // `nap` is read before `ticks`, which is written first when the nap ends. At worst a nap that has just ended is counted twice, and
        // the result is a few ticks too high. It is too low by at most one, when a nap is about to end.
        let nap = self.nap.load(Ordering::Acquire);
        let passed = match nap {
            0 | 1 => 0,
            nap => {
                // Acquire: if this is the begin of a later nap, the ticks of the earlier one are counted below.
                let since = Duration::from_nanos(self.napping_since.load(Ordering::Acquire));
                self.ticks_of(time().saturating_sub(since), nap - 1)
            }
        };
        self.counted() + passed
    }

    /// Begins to wait for this many ticks. Only the clock may call this.
    pub fn begin_nap(&self, ticks: u64, time: Duration) -> Nap {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.napping_since.store(nanoseconds, Ordering::Release);
        self.nap.store(ticks, Ordering::Release);
        Nap { ticks, since: time }
    }

    /// Ends the wait and counts its ticks, which are returned. Time beyond its length does not count: whatever keeps the clock from running
    /// usually keeps the other threads from running, too. Only the clock may call this.
    pub fn end_nap(&self, Nap { ticks, since }: Nap, time: Duration) -> u64 {
        let passed = self.ticks_of(time.saturating_sub(since), ticks);
        self.ticks.fetch_add(passed, Ordering::Relaxed);
        self.nap.store(1, Ordering::Release);
        passed
    }

    /// Length of the current nap in ticks; 1 between naps.
    pub fn nap(&self) -> u64 {
        self.nap.load(Ordering::Relaxed)
    }

    /// Whole ticks in a duration, at most so many.
    fn ticks_of(&self, time: Duration, most: u64) -> u64 {
        let ticks = time.as_nanos() / self.tick.as_nanos().max(1);
        u64::try_from(ticks).unwrap_or(u64::MAX).min(most)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_elapsed_part_of_a_nap_counts() {
        let time = Duration::from_micros;
        let clock = NapClock::new(time(1_000));
        let nap = clock.begin_nap(4, time(500));
        assert_eq!(clock.nap(), 4);
        assert_eq!(clock.passed(|| time(500)), 0);
        assert_eq!(clock.passed(|| time(1_499)), 0);
        assert_eq!(clock.passed(|| time(3_000)), 2);
        // The clock is late: the nap counts as one that ends now.
        assert_eq!(clock.passed(|| time(4_499)), 3);
        assert_eq!(clock.passed(|| time(100_000)), 3);
        assert_eq!(clock.counted(), 0);
        assert_eq!(clock.end_nap(nap, time(100_000)), 4);
        assert_eq!(clock.nap(), 1);
        assert_eq!(clock.passed(|| unreachable!("no nap")), 4);
        let early = clock.begin_nap(4, time(100_000));
        assert_eq!(clock.end_nap(early, time(101_100)), 1);
        assert_eq!(clock.counted(), 5);
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    use super::*;

    const NAP: u64 = 2;

    /// A clock with the time, of which a nanosecond is a tick.
    struct Timed {
        clock: NapClock,
        time: AtomicU64,
    }

    impl Timed {
        fn time(&self) -> u64 {
            self.time.load(Ordering::Acquire)
        }

        /// A plain load may see an earlier one.
        fn newest_time(&self) -> u64 {
            self.time.fetch_add(0, Ordering::AcqRel)
        }

        fn nap(&self) {
            let time = || Duration::from_nanos(self.time());
            let nap = self.clock.begin_nap(NAP, time());
            for _ in 0..NAP {
                self.time.fetch_add(1, Ordering::AcqRel);
            }
            assert_eq!(self.clock.end_nap(nap, time()), NAP);
        }
    }

    #[test]
    fn a_deadline_is_at_most_a_tick_early_and_a_nap_late() {
        loom::model(|| {
            let timed = Arc::new(Timed {
                clock: NapClock::new(Duration::from_nanos(1)),
                time: AtomicU64::new(0),
            });
            let clock = {
                let timed = Arc::clone(&timed);
                thread::spawn(move || {
                    timed.nap();
                    timed.nap();
                })
            };
            let before = timed.newest_time();
            let passed = timed.clock.passed(|| Duration::from_nanos(timed.time()));
            let after = timed.newest_time();
            // The last tick of a nap counts when the nap ends, which may be at once.
            assert!(passed + 1 >= before, "{passed} ticks, {before} before");
            assert!(passed <= after + NAP, "{passed} ticks, {after} after");
            clock.join().expect("the clock ends");
            assert_eq!(timed.clock.counted(), 2 * NAP);
        });
    }
}
