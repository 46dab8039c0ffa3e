//! What one tenant may take: requests a second, a share of each worker's time, and its part when that is not enough for all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_policy::Share;

use crate::config::Rate;
use crate::metrics::Shed;

use super::pressure::Pressure;

/// How far ahead of its share a tenant may get: what it did not take in the last tenth of a second.
const BURST: Duration = Duration::from_millis(100);

/// The requests of a tenant whose calls take longer than this on average let those of others go first. An honest policy takes a few
/// microseconds.
const SLOW: Duration = Duration::from_micros(25);

/// What a call counts for in the average.
const WEIGHT: u64 = 8;

/// Keeps a tenant within its bounds. What is too much is turned away before it costs anything.
///
/// All bounds are kept by the generic cell rate algorithm (ITU-T I.371): the one number that there is, is the time at which
/// everything that was taken so far would have been due.
#[derive(Debug)]
pub struct Budget {
    begun: Instant,
    requests: Option<Requests>,
    share: Share,
    /// For each worker, which is the only one that writes it.
    times: Box<[Times]>,
}

#[derive(Debug)]
struct Requests {
    /// Nanoseconds that one takes.
    each: u64,
    /// Nanoseconds that may be ahead.
    ahead: u64,
    due: AtomicU64,
}

/// Aligned so that two workers never write to one cache line. Nanoseconds since `begun`, but for window, mean and row.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Times {
    /// When what it took would be due at its share.
    share_due: AtomicU64,
    /// When it would be due as the worker's pressure weighs it.
    fair_due: AtomicU64,
    /// In which window of the worker's it was seen last.
    window: AtomicU64,
    /// What a call takes, on average.
    mean: AtomicU64,
    /// The worker's row in which a request of it waited last.
    row: AtomicU64,
}

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
            times: (0..workers).map(|_| Times::default()).collect(),
        }
    }

    /// Bounds that nothing reaches.
    pub fn unlimited(workers: usize) -> Self {
        Self::new(None, Share::ALL, workers)
    }

    /// Takes one request; an error if it is one too many.
    #[inline]
    pub fn admit(&self, worker: usize, now: Instant, pressure: &mut Pressure) -> Result<(), Shed> {
        let times = &self.times[worker];
        if times.window.load(Ordering::Relaxed) != pressure.window() {
            times.window.store(pressure.window(), Ordering::Relaxed);
            pressure.meet();
        }
        let is_ahead = |due: &AtomicU64, burst| {
            due.load(Ordering::Relaxed) > self.since_begun(now) + nanoseconds(burst)
        };
        if self.share < Share::ALL && is_ahead(&times.share_due, BURST) {
            return Err(Shed::Share);
        }
        if pressure.weight() > 1.0 && is_ahead(&times.fair_due, pressure.burst()) {
            return Err(Shed::Pressure);
        }
        match &self.requests {
            Some(requests) if !requests.take(self.since_begun(now)) => Err(Shed::Rate),
            _ => Ok(()),
        }
    }

    /// Whether its calls take long, so that those of others should go first.
    #[inline]
    pub fn is_slow(&self, worker: usize) -> bool {
        self.times[worker].mean.load(Ordering::Relaxed) > nanoseconds(SLOW)
    }

    /// Whether a request is to wait until others have had their turn, in the worker's row of this number, from 1. Who has one in
    /// the row already joins it again: its requests stay in order.
    #[inline]
    pub fn joins(&self, worker: usize, row: u64) -> bool {
        let times = &self.times[worker];
        let waits = self.is_slow(worker) || times.row.load(Ordering::Relaxed) == row;
        if waits {
            times.row.store(row, Ordering::Relaxed);
        }
        waits
    }

    /// Notes what a call took of the processor's time ([`Pressure::cost`]).
    #[inline]
    pub fn charge(&self, worker: usize, begun: Instant, took: Duration, pressure: &Pressure) {
        let times = &self.times[worker];
        let took = nanoseconds(took);
        let mean = times.mean.load(Ordering::Relaxed);
        let mean = mean - mean / WEIGHT + took / WEIGHT;
        times.mean.store(mean, Ordering::Relaxed);
        let begun = self.since_begun(begun);
        let charge = |due: &AtomicU64, cost| {
            let from = due.load(Ordering::Relaxed).max(begun);
            due.store(from.saturating_add(cost), Ordering::Relaxed);
        };
        charge(&times.fair_due, (took as f64 * pressure.weight()) as u64);
        if self.share < Share::ALL {
            // At a share of a quarter, each nanosecond stands for four.
            let weight = u64::from(Share::ALL.hundredths());
            let share = u64::from(self.share.hundredths().max(1));
            charge(&times.share_due, took.saturating_mul(weight) / share);
        }
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
        let mut pressure = Pressure::new(budget.begun);
        let at = |milliseconds| budget.begun + Duration::from_millis(milliseconds);
        let mut admitted = |milliseconds, tries| {
            let tries = (0..tries).map(|_| budget.admit(0, at(milliseconds), &mut pressure));
            tries.filter(Result::is_ok).count()
        };
        assert_eq!(admitted(0, 20), 5);
        assert_eq!(admitted(0, 1), 0);
        assert_eq!(admitted(10, 20), 1);
        assert_eq!(admitted(1000, 20), 5);
        let second: usize = (1000..2000).map(|at| admitted(at, 3)).sum();
        assert!((99..=101).contains(&second), "{second}");
    }

    #[test]
    fn a_share_holds_over_time_and_for_each_worker_alone() {
        let budget = Budget::new(None, share("25%"), 2);
        let mut pressure = Pressure::new(budget.begun);
        // Calls of 1 ms, one behind the other, as many as are let in.
        let (mut now, mut taken) = (budget.begun, Duration::ZERO);
        let call = Duration::from_millis(1);
        while now < budget.begun + Duration::from_secs(10) {
            if budget.admit(0, now, &mut pressure).is_ok() {
                budget.charge(0, now, call, &pressure);
                taken += call;
            }
            now += call;
        }
        let least = Duration::from_millis(2500);
        assert!(taken >= least && taken <= least + BURST, "{taken:?}");
        assert_eq!(budget.admit(1, now, &mut pressure), Ok(()));
    }

    #[test]
    fn nothing_is_saved_up() {
        let budget = Budget::new(None, share("50%"), 1);
        let mut pressure = Pressure::new(budget.begun);
        let later = budget.begun + Duration::from_secs(3600);
        budget.charge(0, later, Duration::from_millis(51), &pressure);
        assert_eq!(budget.admit(0, later, &mut pressure), Err(Shed::Share));
        assert_eq!(
            budget.admit(0, later + Duration::from_millis(3), &mut pressure),
            Ok(())
        );
    }

    #[test]
    fn who_is_slow_waits_and_stays_in_order() {
        let budget = Budget::unlimited(2);
        let pressure = Pressure::new(budget.begun);
        let calls = |count, took| {
            for _ in 0..count {
                budget.charge(0, budget.begun, took, &pressure);
            }
        };
        assert!(!budget.joins(0, 1));
        calls(100, Duration::from_micros(24));
        assert!(!budget.joins(0, 1));
        calls(100, Duration::from_micros(40));
        assert!(budget.joins(0, 1));
        assert!(!budget.joins(1, 1), "the other worker's calls are its own");
        calls(100, Duration::from_micros(5));
        assert!(budget.joins(0, 1), "one of it is in the row");
        assert!(!budget.joins(0, 2));
    }

    #[test]
    fn without_bounds_everything_goes() {
        let budget = Budget::unlimited(1);
        let mut pressure = Pressure::new(budget.begun);
        budget.charge(0, budget.begun, Duration::from_secs(3600), &pressure);
        assert_eq!(budget.admit(0, budget.begun, &mut pressure), Ok(()));
    }

    /// A processor that a worker has for some time, and then others have it for some time.
    struct Machine {
        now: Instant,
        processor: Duration,
        on: Duration,
        off: Duration,
        left: Duration,
    }

    impl Machine {
        fn run(&mut self, mut time: Duration) {
            self.processor += time;
            while time > self.left {
                time -= self.left;
                self.now += self.left + self.off;
                self.left = self.on;
            }
            self.now += time;
            self.left -= time;
        }
    }

    /// As [`simulate_on`], with the processor for the worker alone.
    fn simulate(tenants: &[(u64, Duration)]) -> Vec<(f64, usize)> {
        simulate_on(Duration::ZERO, tenants)
    }

    /// A worker with these budgets: at each call the next one's turn comes, for as many seconds of the worker's time. Each tenant
    /// sends so many requests a second and takes so much time for each. Others have the processor for `off` after 4 ms of use. Gives what
    /// each got, in parts of the time, and how many were turned away.
    fn simulate_on(off: Duration, tenants: &[(u64, Duration)]) -> Vec<(f64, usize)> {
        const SEND: Duration = Duration::from_micros(5);
        let on = Duration::from_millis(4);
        let long = Duration::from_secs(4);
        let budgets: Vec<_> = tenants.iter().map(|_| Budget::unlimited(1)).collect();
        let begun = budgets[0].begun;
        let mut pressure = Pressure::new(begun);
        let mut next = vec![begun; tenants.len()];
        let mut got = vec![(0.0, 0); tenants.len()];
        let mut pauses = 0;
        let mut machine = Machine {
            now: begun,
            processor: Duration::ZERO,
            on,
            off,
            left: on,
        };
        while machine.now < begun + long {
            let (nth, &due) = next.iter().enumerate().min_by_key(|(_, at)| **at).unwrap();
            if due > machine.now {
                machine.now = due;
                pauses += 1;
            }
            let (rate, cost) = tenants[nth];
            next[nth] += Duration::from_secs(1) / u32::try_from(rate).unwrap();
            let asked = machine.now;
            pressure.look(asked, pauses, tenants.len(), || Some(machine.processor));
            match budgets[nth].admit(0, asked, &mut pressure) {
                Ok(()) => {
                    machine.run(cost);
                    let took = machine.now - asked;
                    let charged = pressure.cost(took, machine.now, || Some(machine.processor));
                    budgets[nth].charge(0, asked, charged, &pressure);
                    got[nth].0 += cost.as_secs_f64() / long.as_secs_f64();
                }
                Err(shed) => {
                    assert_eq!(shed, Shed::Pressure);
                    got[nth].1 += 1;
                }
            }
            machine.run(SEND);
        }
        got
    }

    #[test]
    fn who_takes_too_much_gives_way_when_a_worker_does_not_keep_up() {
        let (calm, heavy) = (Duration::from_micros(5), Duration::from_micros(400));
        let got = simulate(&[(5_000, calm), (5_000, heavy), (2_000, calm)]);
        assert_eq!((got[0].1, got[2].1), (0, 0), "{got:?}");
        assert!(got[1].1 > 10_000, "{got:?}");
        // What the others leave is still its own.
        assert!((0.6..0.95).contains(&got[1].0), "{got:?}");
    }

    #[test]
    fn all_who_take_too_much_get_the_same() {
        let calm = Duration::from_micros(5);
        let heavy = [Duration::from_micros(400), Duration::from_millis(2)];
        let got = simulate(&[(5_000, calm), (5_000, heavy[0]), (5_000, heavy[1])]);
        assert_eq!(got[0].1, 0, "{got:?}");
        let ratio = got[1].0 / got[2].0;
        assert!((0.7..1.4).contains(&ratio), "{got:?}");
    }

    #[test]
    fn a_worker_that_keeps_up_turns_nobody_away() {
        let got = simulate(&[
            (1_000, Duration::from_micros(800)),
            (5_000, Duration::from_micros(5)),
        ]);
        assert_eq!((got[0].1, got[1].1), (0, 0), "{got:?}");
    }

    #[test]
    fn what_others_take_of_the_processor_is_nobodys_here() {
        let (light, calm) = (Duration::from_micros(20), Duration::from_micros(5));
        for off in [2, 12, 40].map(Duration::from_millis) {
            // Too much for the worker now, and of no tenant alone.
            let got = simulate_on(off, &[(20_000, calm), (200, light), (20_000, calm)]);
            assert_eq!(got[1].1, 0, "{off:?}: {got:?}");
        }
    }

    #[test]
    fn who_takes_too_much_gives_way_when_there_is_less() {
        let (calm, heavy) = (Duration::from_micros(5), Duration::from_micros(400));
        let off = Duration::from_millis(4);
        let got = simulate_on(off, &[(5_000, calm), (5_000, heavy), (2_000, calm)]);
        assert_eq!((got[0].1, got[2].1), (0, 0), "{got:?}");
        // An equal part of what the worker has is its own.
        assert!((0.166..0.45).contains(&got[1].0), "{got:?}");
    }

    #[test]
    fn a_few_calls_of_one_among_many_are_not_too_much() {
        const TENANTS: usize = 100;
        let budget = Budget::unlimited(1);
        let mut pressure = Pressure::new(budget.begun);
        let mut now = budget.begun;
        for _ in 0..TENANTS {
            pressure.meet();
        }
        for _ in 0..40 {
            now += Duration::from_millis(2);
            pressure.look(now, 0, TENANTS, || None);
        }
        let call = Duration::from_micros(200);
        let mut calls = 0;
        while budget.admit(0, now, &mut pressure).is_ok() {
            budget.charge(0, now, call, &pressure);
            calls += 1;
        }
        assert_eq!(calls, 6);
    }
}
