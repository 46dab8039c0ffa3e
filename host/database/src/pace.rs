//! The pauses between the polls of a database, so that the hosts of a fleet do not poll, reconnect and load at the same moments.

use std::time::Duration;

/// The part of each pause that is random. Hosts that were started at the same moment, or have lost their database at the same moment, are
/// spread over the whole interval after some polls.
const SPREAD: f64 = 0.25;

/// Longest pause between two attempts to reach a database.
const LONGEST: Duration = Duration::from_secs(2);

/// Shortest pause after a poll that only asks whether there are changes.
const SHORTEST: Duration = Duration::from_millis(250);

/// The pause is this many times as long as such a poll takes: a host keeps one connection busy for at most 4 % of the time. One poll asks for
/// everything that the host follows.
const TIMES: u32 = 25;

/// The pause after a load is this many times as long as the load took.
const LOADS: u32 = 10;

/// The pauses of one loop that polls.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    poll: Duration,
    /// Number of polls that failed in succession.
    failures: u32,
}

impl Pace {
    /// The pace of a loop that polls at this interval.
    pub fn new(poll: Duration) -> Self {
        Self { poll, failures: 0 }
    }

    /// The pause before the first poll: any part of the interval, or of 2 s if that is shorter, because many hosts may have been started at once.
    pub fn first(&self) -> Duration {
        self.poll.min(LONGEST).mul_f64(fastrand::f64())
    }

    /// The pause after a poll that succeeded: the interval, less a random part of up to a quarter of it. `took` is how long the load took that
    /// the poll led to, zero if there was none: a large table that changes all the time is being read half of the time.
    pub fn succeeded(&mut self, took: Duration) -> Duration {
        self.failures = 0;
        let longest = self.poll.max(took);
        longest - longest.mul_f64(SPREAD * fastrand::f64())
    }

    /// The pause after a load of a table that is followed by frequent looks: ten times as long as the load took, but at least a quarter of the interval,
    /// and at most the interval or, if that is longer, as long as the load took; less a random part of up to a quarter of it. None if nothing was
    /// loaded.
    ///
    /// The first change after such a pause is loaded at once; a table that changes all the time is not read all the time.
    pub fn loaded(&mut self, took: Duration) -> Duration {
        self.failures = 0;
        if took.is_zero() {
            return Duration::ZERO;
        }
        let whole = took
            .saturating_mul(LOADS)
            .clamp(self.poll / 4, self.poll.max(took));
        whole - whole.mul_f64(SPREAD * fastrand::f64())
    }

    /// The pause after a poll that only asks whether there are changes, and was answered within this time: from 250 ms up to the interval, less a
    /// random part of up to a quarter of it.
    ///
    /// Such a poll takes a millisecond on a server nearby, so that a change is read within 250 ms; far away, or with many rows, it takes longer,
    /// and comes less often.
    pub fn answered(&mut self, poll: Duration) -> Duration {
        self.failures = 0;
        let shortest = SHORTEST.min(self.poll);
        let whole = poll.saturating_mul(TIMES).clamp(shortest, self.poll);
        whole - whole.mul_f64(SPREAD * fastrand::f64())
    }

    /// The pause after a poll that failed: between half of the longest pause and the longest one, which is the interval after the first failure and
    /// doubles with each further one, up to 2 s.
    pub fn failed(&mut self) -> Duration {
        let doubled = 1_u32 << self.failures.min(8);
        self.failures = self.failures.saturating_add(1);
        let longest = self
            .poll
            .saturating_mul(doubled)
            .min(LONGEST.max(self.poll));
        longest.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_secs(1);

    fn all(mut pause: impl FnMut() -> Duration) -> Vec<f64> {
        (0..1000).map(|_| pause().as_secs_f64()).collect()
    }

    fn are_within(pauses: &[f64], least: f64, most: f64) {
        assert!(
            pauses.iter().all(|pause| (least..=most).contains(pause)),
            "{pauses:?}"
        );
        // They are spread: some are in the first and in the last tenth of the range.
        let tenth = (most - least) / 10.0;
        assert!(pauses.iter().any(|pause| *pause < least + tenth));
        assert!(pauses.iter().any(|pause| *pause > most - tenth));
    }

    #[test]
    fn hosts_that_start_at_once_poll_at_different_moments() {
        are_within(&all(|| Pace::new(POLL).first()), 0.0, 1.0);
        are_within(
            &all(|| Pace::new(POLL).succeeded(Duration::ZERO)),
            0.75,
            1.0,
        );
    }

    #[test]
    fn cheap_polls_are_frequent_and_dear_ones_are_not() {
        let after = |millis| {
            let poll = Duration::from_millis(millis);
            all(|| Pace::new(POLL).answered(poll))
        };
        are_within(&after(0), 0.1875, 0.25);
        are_within(&after(10), 0.1875, 0.25);
        are_within(&after(20), 0.375, 0.5);
        are_within(&after(80), 0.75, 1.0);
    }

    #[test]
    fn a_table_that_changes_all_the_time_is_not_read_all_the_time() {
        let after = |millis| {
            let took = Duration::from_millis(millis);
            all(|| Pace::new(POLL).loaded(took))
        };
        assert_eq!(Pace::new(POLL).loaded(Duration::ZERO), Duration::ZERO);
        are_within(&after(1), 0.1875, 0.25);
        are_within(&after(80), 0.6, 0.8);
        are_within(&after(400), 0.75, 1.0);
        are_within(&after(8000), 6.0, 8.0);
    }

    #[test]
    fn a_load_is_followed_by_a_pause_of_its_length() {
        let took = Duration::from_secs(8);
        are_within(&all(|| Pace::new(POLL).succeeded(took)), 6.0, 8.0);
    }

    #[test]
    fn the_pause_doubles_with_each_failure_up_to_two_seconds_and_is_random() {
        let after = |failures: u32| {
            all(|| {
                let mut pace = Pace::new(POLL);
                for _ in 1..failures {
                    pace.failed();
                }
                pace.failed()
            })
        };
        are_within(&after(1), 0.5, 1.0);
        are_within(&after(2), 1.0, 2.0);
        are_within(&after(100), 1.0, 2.0);
        let mut pace = Pace::new(POLL);
        pace.failed();
        pace.failed();
        pace.succeeded(Duration::ZERO);
        assert!(pace.failed() <= POLL, "a success ends the doubling");
    }

    #[test]
    fn an_interval_above_two_seconds_stays_the_longest_pause() {
        let poll = Duration::from_secs(30);
        let mut pace = Pace::new(poll);
        pace.failed();
        let pause = pace.failed();
        assert!(pace.first() <= LONGEST);
        assert!(poll / 2 <= pause && pause <= poll, "{pause:?}");
    }
}
