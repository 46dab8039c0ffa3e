//! Takes a policy out of service that fails too often.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use portcullis_config::BreakerConfig;

/// Counts the failures of one policy over all workers. While nothing fails, it costs a worker one look at a number.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    begun: Instant,
    /// Nanoseconds since `begun` until which the policy is not asked. After that it is on probation; 0 is neither.
    open_until: AtomicU64,
    /// When the last ones were, the oldest first; no more than it takes.
    failures: Mutex<VecDeque<Instant>>,
}

/// This failure was one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tripped {
    /// How many there were.
    pub failures: u32,
    /// Within this time.
    pub within: Duration,
}

impl Breaker {
    /// A breaker that has not seen anything fail.
    pub fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            begun: Instant::now(),
            open_until: AtomicU64::new(0),
            failures: Mutex::new(VecDeque::new()),
        }
    }

    /// Whether the policy may be asked. After a pause it may again: the first call decides whether it stays.
    #[inline]
    pub fn admits(&self, now: Instant) -> bool {
        match self.open_until.load(Ordering::Relaxed) {
            0 => true,
            until => self.since_begun(now) >= until,
        }
    }

    /// The policy decided: a pause that is over is forgotten.
    #[inline]
    pub fn close(&self, now: Instant) {
        // A call may have begun before another one took the policy out.
        if self.open_until.load(Ordering::Relaxed) != 0 && self.admits(now) {
            self.reset();
        }
    }

    /// Counts a failure. At the last one that is borne, the policy is out of service for the pause, and whoever counted it is told.
    pub fn count(&self, now: Instant) -> Option<Tripped> {
        let BreakerConfig {
            failures: most,
            window,
            pause,
        } = self.config;
        if most == 0 {
            return None;
        }
        let mut failures = self.failures.lock();
        // Other workers may have been at it when it was taken out.
        if !self.admits(now) {
            return None;
        }
        while failures
            .front()
            .is_some_and(|&first| now.saturating_duration_since(first) > window)
        {
            failures.pop_front();
        }
        failures.push_back(now);
        let is_on_probation = self.open_until.load(Ordering::Relaxed) != 0;
        if failures.len() < most as usize && !is_on_probation {
            return None;
        }
        let first = failures.front().copied().unwrap_or(now);
        let count = failures.len().try_into().unwrap_or(most);
        failures.clear();
        let pause = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
        let until = self.since_begun(now).saturating_add(pause).max(1);
        self.open_until.store(until, Ordering::Relaxed);
        Some(Tripped {
            failures: count,
            within: now.saturating_duration_since(first),
        })
    }

    /// Forgets everything: another policy serves.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(failures: u32) -> Breaker {
        Breaker::new(BreakerConfig {
            failures,
            window: Duration::from_secs(10),
            pause: Duration::from_secs(30),
        })
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
