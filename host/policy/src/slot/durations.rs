//! How long calls take: counts in buckets of fixed bounds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Durations below 2 to the power of this, in nanoseconds, are in the first bucket.
const LEAST: u32 = 8;

/// Durations from 2 to the power of this, in nanoseconds, are in the last bucket: 17 s.
const MOST: u32 = 34;

/// Buckets for each power of two.
const PARTS: u32 = 4;

const BUCKETS: usize = 2 + ((MOST - LEAST) * PARTS) as usize;

/// How often calls took how long. The buckets are the same everywhere: counts of workers and hosts are merged by adding them.
///
/// A bucket is at most a quarter as wide as its lower bound: [`Durations::percentile`] is up to 25 % too long and never too short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations(BTreeMap<u16, u64>);

/// The counters of a worker.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct DurationCounters([AtomicU64; BUCKETS]);

impl Durations {
    /// No durations.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Counts as they were sent, by number of the bucket. Numbers that this version does not have count as the longest one.
    pub fn of_counts(counts: &BTreeMap<u16, u64>) -> Self {
        let mut all = Self::default();
        for (bucket, count) in counts {
            all.add((*bucket).min(LAST), *count);
        }
        all
    }

    /// The counts, by number of the bucket, without empty buckets.
    pub fn counts(&self) -> &BTreeMap<u16, u64> {
        &self.0
    }

    /// Counts one duration.
    pub fn note(&mut self, took: Duration) {
        self.add(bucket_of(took), 1);
    }

    /// Adds the counts of others.
    pub fn merge(&mut self, others: &Self) {
        for (bucket, count) in &others.0 {
            self.add(*bucket, *count);
        }
    }

    /// What has come since these counts.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let counts = self.0.iter().filter_map(|(bucket, count)| {
            let earlier = before.0.get(bucket).copied().unwrap_or(0);
            let new = count.checked_sub(earlier).filter(|new| *new > 0)?;
            Some((*bucket, new))
        });
        Self(counts.collect())
    }

    /// The number of durations.
    pub fn total(&self) -> u64 {
        self.0
            .values()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The upper bound of the bucket that has the duration which this percentage of all do not exceed, in nanoseconds; `None` without durations.
    pub fn percentile(&self, percent: u8) -> Option<u64> {
        let total = self.total();
        let rank = (u128::from(total) * u128::from(percent))
            .div_ceil(100)
            .max(1);
        let mut below: u128 = 0;
        let found = self.0.iter().find(|(_, count)| {
            below += u128::from(**count);
            below >= rank
        });
        found.map(|(bucket, _)| upper(*bucket))
    }

    /// How many durations are in buckets that begin at this number of nanoseconds or later.
    pub fn at_least(&self, nanoseconds: u64) -> u64 {
        let later = self
            .0
            .iter()
            .filter(|(bucket, _)| lower(**bucket) >= nanoseconds);
        later.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    fn add(&mut self, bucket: u16, count: u64) {
        if count > 0 {
            let sum = self.0.entry(bucket).or_default();
            *sum = sum.saturating_add(count);
        }
    }
}

impl Default for DurationCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl DurationCounters {
    #[inline]
    pub(super) fn note(&self, took: Duration) {
        if let Some(counter) = self.0.get(usize::from(bucket_of(took))) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn add_to(&self, sum: &mut Durations) {
        for (bucket, counter) in (0..).zip(&self.0) {
            sum.add(bucket, counter.load(Ordering::Relaxed));
        }
    }
}

/// The number of the last bucket.
const LAST: u16 = (BUCKETS - 1) as u16;

#[inline]
fn bucket_of(took: Duration) -> u16 {
    let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    let Some(power) = nanoseconds.checked_ilog2().filter(|power| *power >= LEAST) else {
        return 0;
    };
    if power >= MOST {
        return LAST;
    }
    // The two bits after the highest one.
    let part = (nanoseconds >> (power - 2)) & 3;
    (1 + (power - LEAST) * PARTS) as u16 + part as u16
}

/// The lower bound of a bucket in nanoseconds.
fn lower(bucket: u16) -> u64 {
    match bucket {
        0 => 0,
        bucket => {
            let (power, part) = place(bucket.min(LAST));
            (u64::from(PARTS) + part) << (power - 2)
        }
    }
}

/// The upper bound of a bucket in nanoseconds, which belongs to the next one. The last bucket has none: its lower bound.
fn upper(bucket: u16) -> u64 {
    lower(bucket.saturating_add(1).min(LAST))
}

/// The power of two in which a bucket begins, and its part of it. Not for the first bucket.
fn place(bucket: u16) -> (u32, u64) {
    let after = u32::from(bucket) - 1;
    (LEAST + after / PARTS, u64::from(after % PARTS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn durations(nanoseconds: impl IntoIterator<Item = u64>) -> Durations {
        let mut all = Durations::default();
        for one in nanoseconds {
            all.note(Duration::from_nanos(one));
        }
        all
    }

    #[test]
    fn bounds_follow_each_other() {
        assert_eq!((lower(0), upper(0)), (0, 256));
        assert_eq!((lower(1), upper(1)), (256, 320));
        assert_eq!((lower(4), upper(4)), (448, 512));
        assert_eq!(lower(LAST), 1 << MOST);
        for bucket in 0..LAST {
            assert!(lower(bucket) < upper(bucket), "{bucket}");
            assert_eq!(upper(bucket), lower(bucket + 1));
        }
    }

    #[test]
    fn percentiles_of_merged_hosts_are_those_of_all_calls() {
        let (one, other) = (durations(vec![1_000; 980]), durations(vec![50_000; 20]));
        let mut both = one.clone();
        both.merge(&other);
        assert_eq!(both.total(), 1_000);
        assert_eq!(one.percentile(99), Some(1_024));
        // 980 of 1,000 are short: 98 %.
        assert_eq!(both.percentile(98), Some(1_024));
        assert_eq!(both.percentile(99), Some(57_344));
        assert_eq!((both.at_least(2_048), both.at_least(1 << 20)), (20, 0));
        assert_eq!(both.since(&one), other);
        assert_eq!(Durations::of_counts(both.counts()), both);
        assert_eq!(Durations::default().percentile(99), None);
    }

    #[test]
    fn buckets_of_another_version_count_as_the_longest() {
        let sent = BTreeMap::from([(u16::MAX, 3), (2, 0)]);
        let read = Durations::of_counts(&sent);
        assert_eq!((read.total(), read.percentile(50)), (3, Some(1 << MOST)));
    }

    proptest! {
        /// The documented error.
        #[test]
        fn a_percentile_is_at_most_a_quarter_too_long(all in prop::collection::vec(256_u64..1 << MOST, 1..200), percent in 1_u8..=100) {
            let mut sorted = all.clone();
            sorted.sort_unstable();
            let rank = (sorted.len() * usize::from(percent)).div_ceil(100);
            let exact = sorted[rank - 1];
            let told = durations(all).percentile(percent).unwrap();
            prop_assert!(exact < told || told == 1 << MOST, "{exact} {told}");
            prop_assert!(told <= exact + exact / 4 + 1, "{exact} {told}");
        }

        #[test]
        fn workers_count_as_one_list_does(all in prop::collection::vec(any::<u64>(), 0..100)) {
            let counters = DurationCounters::default();
            for one in &all {
                counters.note(Duration::from_nanos(*one));
            }
            let mut sum = Durations::default();
            counters.add_to(&mut sum);
            prop_assert_eq!(sum, durations(all));
        }
    }
}
