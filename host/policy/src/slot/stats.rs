//! Statistics of the calls of a generation.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::failure::{Failure, FailureKind};
use crate::next_step::NextStep;
use crate::verdict::Verdict;

use super::durations::{DurationCounters, Durations};

/// Counters of one generation, striped so that workers do not contend for cache lines.
#[derive(Debug, Default)]
pub struct Stats {
    first: Stripe,
    /// Made with the first call of a worker: a host has thousands of generations, and fewer workers than stripes as a rule.
    others: [OnceLock<Box<Stripe>>; Self::STRIPES - 1],
    /// How long calls took, since the first canary trial with this generation: most generations have none.
    durations: OnceLock<Box<[DurationCounters; Self::STRIPES]>>,
}

/// The counters of one worker, or of several if there are more workers than stripes. Aligned so that two stripes never share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    verdicts: [AtomicU64; VerdictKind::ALL.len()],
    failures: [AtomicU64; FailureKind::ALL.len()],
    steps: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Stripe {
    #[inline]
    fn count(&self, counter: &AtomicU64, took: Duration) {
        counter.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// A kind of verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictKind {
    /// [`Verdict::Relay`]
    Relay,
    /// [`Verdict::Reject`]
    Reject,
    /// [`Verdict::Drop`]
    Drop,
    /// [`Verdict::Pass`]
    Pass,
}

impl Stats {
    const STRIPES: usize = 8;

    /// Counts one call of `decide` by the worker with this number.
    #[inline]
    pub fn record(&self, worker: usize, answer: &Result<Verdict, Failure>, took: Duration) {
        let stripe = self.stripe(worker);
        let counter = match answer {
            Ok(verdict) => &stripe.verdicts[VerdictKind::of(verdict) as usize],
            Err(failure) => &stripe.failures[failure.kind().index()],
        };
        stripe.count(counter, took);
        self.note(worker, took);
    }

    /// Counts one call of `on-failure` by the worker with this number.
    pub fn record_step(&self, worker: usize, answer: &Result<NextStep, Failure>, took: Duration) {
        let stripe = self.stripe(worker);
        let counter = match answer {
            Ok(_) => &stripe.steps,
            Err(failure) => &stripe.failures[failure.kind().index()],
        };
        stripe.count(counter, took);
        self.note(worker, took);
    }

    /// Calls of `on-failure` that did not fail.
    pub fn steps(&self) -> u64 {
        self.sum(|stripe| &stripe.steps)
    }

    /// Verdicts of this kind.
    pub fn verdicts(&self, kind: VerdictKind) -> u64 {
        self.sum(|stripe| &stripe.verdicts[kind as usize])
    }

    /// Failures of this kind.
    pub fn failures(&self, kind: FailureKind) -> u64 {
        self.sum(|stripe| &stripe.failures[kind.index()])
    }

    /// Failures of all kinds.
    pub fn all_failures(&self) -> u64 {
        let kinds = FailureKind::ALL.into_iter();
        kinds.map(|kind| self.failures(kind)).sum()
    }

    /// Calls of both functions, those that failed included.
    pub fn calls(&self) -> u64 {
        let verdicts = VerdictKind::ALL.into_iter().map(|kind| self.verdicts(kind));
        verdicts.sum::<u64>() + self.steps() + self.all_failures()
    }

    /// The total time of all calls.
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.sum(|stripe| &stripe.nanoseconds))
    }

    /// From now on, [`Stats::durations`] counts calls. Takes 7 KiB. Not to be called by a worker.
    pub fn note_durations(&self) {
        self.durations.get_or_init(Box::default);
    }

    /// How long the calls took since [`Stats::note_durations`].
    pub fn durations(&self) -> Durations {
        let mut sum = Durations::default();
        let stripes = self.durations.get().into_iter().flat_map(|all| all.iter());
        stripes.for_each(|stripe| stripe.add_to(&mut sum));
        sum
    }

    #[inline]
    fn note(&self, worker: usize, took: Duration) {
        if let Some(durations) = self.durations.get() {
            durations[worker % Self::STRIPES].note(took);
        }
    }

    #[inline]
    fn stripe(&self, worker: usize) -> &Stripe {
        match (worker % Self::STRIPES).checked_sub(1) {
            None => &self.first,
            Some(other) => self.others[other].get_or_init(Box::default),
        }
    }

    fn sum(&self, pick: impl Fn(&Stripe) -> &AtomicU64) -> u64 {
        let others = self.others.iter().filter_map(OnceLock::get);
        let stripes = others.map(|stripe| &**stripe).chain([&self.first]);
        stripes
            .map(|stripe| pick(stripe).load(Ordering::Relaxed))
            .sum()
    }
}

impl VerdictKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Relay, Self::Reject, Self::Drop, Self::Pass];

    /// The kind of this verdict.
    pub fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Relay(_) => Self::Relay,
            Verdict::Reject(_) => Self::Reject,
            Verdict::Drop => Self::Drop,
            Verdict::Pass => Self::Pass,
        }
    }

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Reject => "reject",
            Self::Drop => "drop",
            Self::Pass => "pass",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_workers_are_summed() {
        let stats = Stats::default();
        for worker in 0..20 {
            stats.record(worker, &Ok(Verdict::Pass), Duration::from_nanos(3));
        }
        let failure = Failure::HostCall { limit: 1 };
        stats.record(1, &Err(failure), Duration::from_nanos(40));
        stats.record_step(2, &Ok(NextStep::Best), Duration::from_nanos(5));

        assert_eq!(stats.verdicts(VerdictKind::Pass), 20);
        assert_eq!(stats.verdicts(VerdictKind::Drop), 0);
        assert_eq!(stats.failures(FailureKind::HostCall), 1);
        assert_eq!(stats.steps(), 1);
        assert_eq!((stats.calls(), stats.all_failures()), (22, 1));
        assert_eq!(stats.time(), Duration::from_nanos(105));
        assert_eq!(stats.durations().total(), 0);
        stats.note_durations();
        stats.record(3, &Ok(Verdict::Pass), Duration::from_micros(50));
        stats.record_step(4, &Ok(NextStep::Best), Duration::from_micros(1));
        stats.note_durations();
        assert_eq!(
            (stats.durations().total(), stats.durations().at_least(2_048)),
            (2, 1)
        );
    }
}
