//! A circuit breaker: takes a policy that fails too often out of service.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::primitives::{AtomicU64, Mutex};

/// Counts the failures of one policy over all workers. While nothing fails, it costs a worker one load.
#[derive(Debug)]
pub struct Breaker {
    /// The number of failures within `window` with which it trips; 0 for never.
    most: u32,
    window: Duration,
    /// How long the policy is not called.
    pause: Duration,
    begun: Instant,
    /// End of the pause in which the policy is not called, in nanoseconds since `begun`. After that the policy is on probation. 0 means
    /// neither.
    open_until: AtomicU64,
    /// Times of the last failures, oldest first; no more than the limit. Held while `open_until` changes.
    failures: Mutex<VecDeque<Instant>>,
}

/// The breaker tripped with this failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tripped {
    /// Number of failures.
    pub failures: u32,
    /// Time span of these failures.
    pub within: Duration,
}

impl Breaker {
    /// A breaker that trips with this many failures within a window, or never with 0, and then pauses.
    pub fn new(most: u32, window: Duration, pause: Duration) -> Self {
        Self {
            most,
            window,
            pause,
            begun: Instant::now(),
            open_until: AtomicU64::new(0),
            failures: Mutex::default(),
        }
    }

    /// Whether the policy may be called. After a pause it may: the first call decides whether it stays in service.
    #[inline]
    pub fn admits(&self, now: Instant) -> bool {
        match self.open_until.load(Ordering::Relaxed) {
            0 => true,
            until => self.since_begun(now) >= until,
        }
    }

    /// Notes a successful call: an elapsed pause is cleared.
    #[inline]
    pub fn close(&self, now: Instant) {
        if self.open_until.load(Ordering::Relaxed) != 0 {
            self.clear(now);
        }
    }

    #[cold]
    fn clear(&self, now: Instant) {
        let mut failures = self.failures.lock();
        // The call may have begun before another call tripped the breaker, which may also happen until this thread has the lock.
        if self.admits(now) {
            failures.clear();
            self.open_until.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a failure. The last tolerated failure takes the policy out of service for the pause, and its caller is notified.
    pub fn count(&self, now: Instant) -> Option<Tripped> {
        if self.most == 0 {
            return None;
        }
        let mut failures = self.failures.lock();
        // Calls on other workers may have been in progress when the breaker tripped.
        if !self.admits(now) {
            return None;
        }
        while failures
            .front()
            .is_some_and(|&first| now.saturating_duration_since(first) > self.window)
        {
            failures.pop_front();
        }
        failures.push_back(now);
        let is_on_probation = self.open_until.load(Ordering::Relaxed) != 0;
        if failures.len() < self.most as usize && !is_on_probation {
            return None;
        }
        let first = failures.front().copied().unwrap_or(now);
        let count = failures.len().try_into().unwrap_or(self.most);
        failures.clear();
        let pause = u64::try_from(self.pause.as_nanos()).unwrap_or(u64::MAX);
        let until = self.since_begun(now).saturating_add(pause).max(1);
        self.open_until.store(until, Ordering::Relaxed);
        Some(Tripped {
            failures: count,
            within: now.saturating_duration_since(first),
        })
    }

    /// Resets everything: another policy is active.
    pub fn reset(&self) {
        let mut failures = self.failures.lock();
        failures.clear();
        self.open_until.store(0, Ordering::Relaxed);
    }

    fn since_begun(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.begun);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn breaker(failures: u32) -> Breaker {
        Breaker::new(failures, Duration::from_secs(10), Duration::from_secs(30))
    }

    #[test]
    fn it_opens_at_the_last_failure_of_the_window() {
        let breaker = breaker(3);
        let at = |seconds| breaker.begun + Duration::from_secs(seconds);
        assert_eq!(breaker.count(at(0)), None);
        assert_eq!(breaker.count(at(8)), None);
        assert_eq!(breaker.count(at(11)), None, "the first one is long ago");
        assert!(breaker.admits(at(12)));
        let tripped = Tripped {
            failures: 3,
            within: Duration::from_secs(4),
        };
        assert_eq!(breaker.count(at(12)), Some(tripped));
        assert!(!breaker.admits(at(12)));
        assert_eq!(breaker.count(at(12)), None, "another worker was at it");
        assert!(!breaker.admits(at(41)));
        assert!(breaker.admits(at(42)));
    }

    #[test]
    fn after_the_pause_the_first_call_decides() {
        let breaker = breaker(2);
        let at = |seconds| breaker.begun + Duration::from_secs(seconds);
        breaker.count(at(0));
        assert!(breaker.count(at(0)).is_some());
        assert!(breaker.admits(at(31)));
        let again = breaker.count(at(31)).unwrap();
        assert_eq!(again.failures, 1);
        assert!(!breaker.admits(at(60)));
        assert!(breaker.admits(at(62)));
        breaker.close(at(60));
        assert!(!breaker.admits(at(60)), "a call from before");
        breaker.close(at(62));
        assert_eq!(breaker.count(at(62)), None, "it has proved itself");
        assert!(breaker.count(at(63)).is_some());
        breaker.reset();
        assert!(breaker.admits(at(64)));
    }

    #[test]
    fn without_a_number_it_never_opens() {
        let breaker = breaker(0);
        for _ in 0..1000 {
            assert_eq!(breaker.count(breaker.begun), None);
        }
        assert!(breaker.admits(breaker.begun));
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// What two threads see that do this to one breaker at once; it trips with two failures.
    fn at_once<A: 'static, B>(
        before: fn(&Breaker),
        one: fn(&Breaker) -> A,
        other: fn(&Breaker) -> B,
        check: fn(&Breaker, A, B),
    ) where
        A: Send,
        B: 'static,
    {
        loom::model(move || {
            let breaker = Breaker::new(2, Duration::from_secs(10), Duration::from_secs(30));
            before(&breaker);
            let breaker = Arc::new(breaker);
            let thread = {
                let breaker = Arc::clone(&breaker);
                thread::spawn(move || one(&breaker))
            };
            let other = other(&breaker);
            let one = thread.join().expect("the other worker ends");
            check(&breaker, one, other);
        });
    }

    fn at(breaker: &Breaker, seconds: u64) -> Instant {
        breaker.begun + Duration::from_secs(seconds)
    }

    #[test]
    fn of_two_failures_on_two_workers_one_trips_the_breaker() {
        let fail = |breaker: &Breaker| breaker.count(at(breaker, 1));
        at_once(
            |_| {},
            fail,
            fail,
            |breaker, one, other| {
                assert!(one.is_some() != other.is_some(), "{one:?} {other:?}");
                assert!(!breaker.admits(at(breaker, 1)));
            },
        );
    }

    #[test]
    fn a_success_on_probation_does_not_close_a_breaker_that_has_tripped_again() {
        at_once(
            |breaker| {
                for _ in 0..2 {
                    breaker.count(at(breaker, 0));
                }
            },
            |breaker| breaker.close(at(breaker, 31)),
            |breaker| breaker.count(at(breaker, 32)),
            |breaker, (), tripped| {
                let is_open = !breaker.admits(at(breaker, 33));
                assert_eq!(tripped.is_some(), is_open);
            },
        );
    }
}
