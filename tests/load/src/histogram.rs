//! Latencies in buckets whose width grows with the value: 64 for each power of two, so that the error is at most 1.6 %.

use serde::{Deserialize, Serialize};

const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;

/// Counts of latencies in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

/// Latencies of a run, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Maximum.
    pub max_us: f64,
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        let buckets = bucket(u64::MAX) + 1;
        Self {
            buckets: vec![0; buckets],
            count: 0,
            max: 0,
        }
    }

    /// Counts one latency.
    pub fn record(&mut self, ns: u64) {
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
        self.max = self.max.max(ns);
    }

    /// Clears the counts.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
        self.max = 0;
    }

    /// The value that a `share` (0 to 1) of all recorded values does not exceed; 0 if there are none.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_end(index).min(self.max);
            }
        }
        self.max
    }

    /// The percentiles of a report.
    pub fn latency(&self) -> Latency {
        let us = |ns: u64| ns as f64 / 1000.0;
        Latency {
            p50_us: us(self.quantile(0.50)),
            p90_us: us(self.quantile(0.90)),
            p99_us: us(self.quantile(0.99)),
            max_us: us(self.max),
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// Each value below 64 has its own bucket. For larger values, the 6 bits after the leading one select one of the 64 buckets of the power of
/// two.
fn bucket(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let shift = value.ilog2() - SUB_BITS;
    let within = (value >> shift) - SUB;
    ((u64::from(shift) + 1) * SUB + within) as usize
}

/// The largest value of a bucket.
fn upper_end(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB {
        return index;
    }
    let shift = index / SUB - 1;
    let within = index % SUB;
    ((SUB + within) << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_close_to_its_end() {
        let values = (0..64)
            .map(|n| 1u64 << n)
            .flat_map(|n| [n - 1, n, n + 1, n + n / 3])
            .chain([u64::MAX]);
        for value in values {
            let end = upper_end(bucket(value));
            assert!(end >= value, "{value} above its bucket's end {end}");
            assert!(end - value <= value / 64, "{value} far from {end}");
        }
    }

    #[test]
    fn buckets_follow_one_another_without_gap() {
        for index in 0..bucket(u64::MAX) {
            assert_eq!(bucket(upper_end(index) + 1), index + 1);
        }
    }

    #[test]
    fn quantiles_of_a_known_set() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), 0);
        for value in 1..=1000 {
            histogram.record(value * 1000);
        }
        let near = |share, value: u64| {
            let got = histogram.quantile(share);
            assert!(got >= value && got - value <= value / 64, "{share}: {got}");
        };
        near(0.5, 500_000);
        near(0.99, 990_000);
        assert_eq!(histogram.quantile(1.0), 1_000_000);
    }
}
