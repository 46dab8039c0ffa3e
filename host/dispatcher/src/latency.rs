//! How long destinations take to answer pings, as Kamailio counts it (`ds_ping_latency_stats`).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// The share of the past in the estimate (Kamailio: `ds_latency_estimator_alpha`, 900).
const PAST: f64 = 0.9;

/// Answers until which the estimate is the average.
const WARM: u32 = 10;

/// Answers after which the average is one with weights, so that it still follows changes.
const MOST_COUNTED: u32 = 1 << 21;

/// The latencies of a destination, in milliseconds. All are 0 before the first answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latencies {
    /// The average.
    pub average: f64,
    /// The standard deviation.
    pub deviation: f64,
    /// What the next answer is expected to take: an average in which each answer weighs a tenth.
    pub estimate: f64,
    /// The longest.
    pub longest: f64,
    /// Number of pings without an answer.
    pub timeouts: u32,
}

/// The latencies of one destination. The control side measures, and workers read two of the values without a lock.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    sums: Mutex<Sums>,
    /// Microseconds.
    average: AtomicU32,
    /// Microseconds.
    estimate: AtomicU32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    shown: Latencies,
    count: u32,
    /// The sum of the squares of the differences from the average (Welford).
    squares: f64,
}

impl Measured {
    /// Notes how long an answer took.
    pub(crate) fn note(&self, took: Duration) {
        let mut sums = self.sums.lock();
        sums.note(took.as_nanos() as f64 / 1e6);
        let Latencies {
            average, estimate, ..
        } = sums.shown;
        // A cast from a float keeps to the range of the integer.
        self.average
            .store((average * 1e3).round() as u32, Ordering::Relaxed);
        self.estimate
            .store((estimate * 1e3).round() as u32, Ordering::Relaxed);
    }

    /// Notes that no answer has come.
    pub(crate) fn note_timeout(&self) {
        let timeouts = &mut self.sums.lock().shown.timeouts;
        *timeouts = timeouts.saturating_add(1);
    }

    /// All values, for the control side.
    pub(crate) fn latencies(&self) -> Latencies {
        self.sums.lock().shown
    }

    /// The average and the estimate in whole milliseconds, without a lock.
    pub(crate) fn for_choice(&self) -> [u32; 2] {
        [&self.average, &self.estimate].map(|value| value.load(Ordering::Relaxed) / 1_000)
    }
}

impl Sums {
    fn note(&mut self, milliseconds: f64) {
        let Self {
            shown,
            count,
            squares,
        } = self;
        if *count < MOST_COUNTED {
            *count += 1;
        } else {
            *squares -= *squares / f64::from(*count);
        }
        let before = milliseconds - shown.average;
        shown.average += before / f64::from(*count);
        *squares += before * (milliseconds - shown.average);
        shown.deviation = match *count {
            0 | 1 => 0.0,
            count => (*squares / f64::from(count - 1)).max(0.0).sqrt(),
        };
        shown.longest = shown.longest.max(milliseconds);
        shown.estimate = match *count < WARM {
            true => shown.average,
            false => shown.estimate * PAST + milliseconds * (1.0 - PAST),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn measured(milliseconds: impl IntoIterator<Item = u64>) -> Measured {
        let measured = Measured::default();
        for time in milliseconds {
            measured.note(Duration::from_millis(time));
        }
        measured
    }

    #[test]
    fn the_estimate_follows_faster_than_the_average() {
        assert_eq!(measured([]).for_choice(), [0, 0]);
        assert_eq!(measured([20]).for_choice(), [20, 20]);
        let slower = measured(std::iter::repeat_n(20, 30).chain([120]));
        assert_eq!(slower.for_choice(), [23, 30]);
        let Latencies {
            longest, timeouts, ..
        } = slower.latencies();
        assert_eq!((longest, timeouts), (120.0, 0));
        slower.note_timeout();
        assert_eq!(slower.latencies().timeouts, 1);
    }

    #[test]
    fn a_latency_beyond_the_range_is_the_largest_one() {
        let days = measured([1 << 40]);
        assert_eq!(days.for_choice(), [u32::MAX / 1_000; 2]);
    }

    proptest! {
        #[test]
        fn average_and_deviation_are_those_of_all_answers(times in prop::collection::vec(0..10_000_u64, 1..60)) {
            let shown = measured(times.iter().copied()).latencies();
            let count = times.len() as f64;
            let average = times.iter().sum::<u64>() as f64 / count;
            let squares: f64 = times.iter().map(|&time| (time as f64 - average).powi(2)).sum();
            let deviation = if times.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
            prop_assert!((shown.average - average).abs() < 1e-6, "{shown:?}");
            prop_assert!((shown.deviation - deviation).abs() < 1e-6, "{shown:?}");
            prop_assert_eq!(shown.longest as u64, times.iter().copied().max().unwrap());
        }
    }
}
