//! A circuit breaker: takes a policy that fails too often out of service.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use portcullis_config::BreakerConfig;

/// Counts the failures of one policy over all workers. While nothing fails, it costs a worker one load.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    begun: Instant,
    /// End of the pause in which the policy is not called, in nanoseconds since `begun`. After that the policy is on probation. 0 means
    /// neither.
    open_until: AtomicU64,
    /// Times of the last failures, oldest first; no more than the limit.
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
    /// A breaker without failures.
    pub fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            begun: Instant::now(),
            open_until: AtomicU64::new(0),
            failures: Mutex::new(VecDeque::new()),
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
        // The call may have begun before another call tripped the breaker.
        if self.open_until.load(Ordering::Relaxed) != 0 && self.admits(now) {
            self.reset();
        }
    }

    /// Counts a failure. The last tolerated failure takes the policy out of service for the pause, and its caller is notified.
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
        // Calls on other workers may have been in progress when the breaker tripped.
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
