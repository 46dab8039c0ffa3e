//! What one tenant may take: requests a second, and a share of each worker's time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_policy::Share;

use crate::config::Rate;
use crate::metrics::Shed;

/// How far ahead of its share a tenant may get: what it did not take in the last tenth of a second.
const BURST: Duration = Duration::from_millis(100);

/// Keeps a tenant within its bounds. What is too much is turned away before it costs anything.
///
/// Both bounds are kept by the generic cell rate algorithm (ITU-T I.371): the one number that there is, is the time at which
/// everything that was taken so far would have been due.
#[derive(Debug)]
pub struct Budget {
    begun: Instant,
    requests: Option<Requests>,
    share: Share,
    /// For each worker, which is the only one that writes it: nanoseconds since `begun`.
    time_due: Box<[Due]>,
}

#[derive(Debug)]
struct Requests {
    /// Nanoseconds that one takes.
    each: u64,
    /// Nanoseconds that may be ahead.
    ahead: u64,
    due: AtomicU64,
}

/// Aligned so that two workers never write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Due(AtomicU64);

impl Budget {
    /// A budget for this many workers.
    pub fn new(rate: Option<Rate>, share: Share, workers: usize) -> Self {
        let requests = rate.map(|Rate { per_second, burst }| {
            let each = 1_000_000_000 / u64::from(per_second.max(1));
            Requests {
                each,
                ahead: each * u64::from(burst.max(1)),
                due: AtomicU64::new(0),
            }
        });
        Self {
            begun: Instant::now(),
            requests,
            share,
            time_due: (0..workers).map(|_| Due::default()).collect(),
        }
    }

    /// Bounds that nothing reaches.
    pub fn unlimited(workers: usize) -> Self {
        Self::new(None, Share::ALL, workers)
    }

    /// Takes one request; an error if it is one too many.
    #[inline]
    pub fn admit(&self, worker: usize, now: Instant) -> Result<(), Shed> {
        if self.share < Share::ALL {
            let due = self.time_due[worker].0.load(Ordering::Relaxed);
            if due > self.since_begun(now) + nanoseconds(BURST) {
                return Err(Shed::Share);
            }
        }
        match &self.requests {
            Some(requests) if !requests.take(self.since_begun(now)) => Err(Shed::Rate),
            _ => Ok(()),
        }
    }

    /// Notes what a call took of the worker's time.
    #[inline]
    pub fn charge(&self, worker: usize, begun: Instant, took: Duration) {
        if self.share == Share::ALL {
            return;
        }
        let due = &self.time_due[worker].0;
        // At a share of a quarter, each nanosecond stands for four.
        let weight = u64::from(Share::ALL.hundredths());
        let cost =
            nanoseconds(took).saturating_mul(weight) / u64::from(self.share.hundredths().max(1));
        let from = due.load(Ordering::Relaxed).max(self.since_begun(begun));
        due.store(from.saturating_add(cost), Ordering::Relaxed);
    }

    fn since_begun(&self, now: Instant) -> u64 {
        nanoseconds(now.saturating_duration_since(self.begun))
    }
}

impl Requests {
    fn take(&self, now: u64) -> bool {
        let next = |due: u64| {
            let due = due.max(now) + self.each;
            (due - now <= self.ahead).then_some(due)
        };
        self.due
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Share {
        Share::parse(text).unwrap()
    }

    #[test]
    fn requests_come_at_their_rate_and_in_bursts() {
        let rate = Rate {
            per_second: 100,
            burst: 5,
        };
        let budget = Budget::new(Some(rate), Share::ALL, 1);
        let at = |milliseconds| budget.begun + Duration::from_millis(milliseconds);
        let admitted = |milliseconds, tries| {
            let tries = (0..tries).map(|_| budget.admit(0, at(milliseconds)));
            tries.filter(Result::is_ok).count()
        };
        assert_eq!(admitted(0, 20), 5);
        assert_eq!(budget.admit(0, at(0)), Err(Shed::Rate));
        assert_eq!(admitted(10, 20), 1);
        assert_eq!(admitted(1000, 20), 5);
        let second: usize = (1000..2000).map(|at| admitted(at, 3)).sum();
        assert!((99..=101).contains(&second), "{second}");
    }

    #[test]
    fn a_share_holds_over_time_and_for_each_worker_alone() {
        let budget = Budget::new(None, share("25%"), 2);
        // Calls of 1 ms, one behind the other, as many as are let in.
        let (mut now, mut taken) = (budget.begun, Duration::ZERO);
        let call = Duration::from_millis(1);
        while now < budget.begun + Duration::from_secs(10) {
            if budget.admit(0, now).is_ok() {
                budget.charge(0, now, call);
                taken += call;
            }
            now += call;
        }
        let least = Duration::from_millis(2500);
        assert!(taken >= least && taken <= least + BURST, "{taken:?}");
        assert_eq!(budget.admit(1, now), Ok(()));
    }

    #[test]
    fn nothing_is_saved_up() {
        let budget = Budget::new(None, share("50%"), 1);
        let later = budget.begun + Duration::from_secs(3600);
        budget.charge(0, later, Duration::from_millis(51));
        assert_eq!(budget.admit(0, later), Err(Shed::Share));
        assert_eq!(budget.admit(0, later + Duration::from_millis(3)), Ok(()));
    }

    #[test]
    fn without_bounds_everything_goes() {
        let budget = Budget::unlimited(1);
        budget.charge(0, budget.begun, Duration::from_secs(3600));
        assert_eq!(budget.admit(0, budget.begun), Ok(()));
    }
}
