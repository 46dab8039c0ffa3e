//! Limits the responses that the host itself sends to one source.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

/// Buckets of one worker. Sources that hash to the same bucket share its rate.
const BUCKETS: usize = 1 << 14;

/// Parts that each second is divided into, in which levels are counted.
const PER_ANSWER: u64 = 1_000_000;

/// A token bucket of responses for each source, an IPv4 address or an IPv6 /64. The table has a fixed size, and a response costs a few
/// instructions. The hash is keyed, so that nobody outside can predict which sources share a bucket.
#[derive(Debug)]
pub(super) struct Answers {
    buckets: Box<[Cell<Bucket>]>,
    hasher: RandomState,
    per_second: u32,
    burst: u32,
    begun: Instant,
}

/// The level of one bucket, which drains with time.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Responses that were sent and are not compensated by time yet, in parts of [`PER_ANSWER`].
    taken: u64,
    /// Time of the last update, in microseconds since the start.
    at: u64,
}

impl Answers {
    /// With `per_second` 0 there is no limit.
    pub(super) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let count = if per_second == 0 { 0 } else { BUCKETS };
        Self {
            buckets: (0..count).map(|_| Cell::default()).collect(),
            hasher: RandomState::new(),
            per_second,
            burst,
            begun: now,
        }
    }

    /// Whether there is any limit.
    pub(super) fn is_limited(&self) -> bool {
        self.per_second > 0
    }

    /// Counts one response to this source; false if the source has reached its limit.
    pub(super) fn take(&self, source: IpAddr, now: Instant) -> bool {
        let Some(cell) = self.bucket(source) else {
            return true;
        };
        let bucket = self.refilled(cell.get(), now);
        let taken = bucket.taken + PER_ANSWER;
        let is_free = taken <= u64::from(self.burst) * PER_ANSWER;
        cell.set(Bucket {
            taken: if is_free { taken } else { bucket.taken },
            ..bucket
        });
        is_free
    }

    /// Returns one response to the bucket: its receiver has proved that it received it.
    pub(super) fn give_back(&self, source: IpAddr) {
        if let Some(cell) = self.bucket(source) {
            let bucket = cell.get();
            cell.set(Bucket {
                taken: bucket.taken.saturating_sub(PER_ANSWER),
                ..bucket
            });
        }
    }

    /// Empties the bucket of the source: it is in the address table.
    pub(super) fn forget(&self, source: IpAddr) {
        if let Some(cell) = self.bucket(source) {
            let at = cell.get().at;
            cell.set(Bucket { taken: 0, at });
        }
    }

    fn bucket(&self, source: IpAddr) -> Option<&Cell<Bucket>> {
        let source = source.to_canonical();
        let prefix = match source {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            // The /64 prefix. IPv4 addresses never have its top bits.
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        let hash = self.hasher.hash_one((source.is_ipv4(), prefix));
        self.buckets.get(hash as usize % BUCKETS)
    }

    fn refilled(&self, bucket: Bucket, now: Instant) -> Bucket {
        let at = now.saturating_duration_since(self.begun).as_micros();
        let at = u64::try_from(at).unwrap_or(u64::MAX);
        // One response costs as many parts as a second has microseconds.
        let since = at.saturating_sub(bucket.at);
        let made_up = since.saturating_mul(self.per_second.into());
        Bucket {
            taken: bucket.taken.saturating_sub(made_up),
            at: at.max(bucket.at),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of a thousand answers may be sent now.
    fn sent(answers: &Answers, source: &str, now: Instant) -> usize {
        (0..1000).filter(|_| answers.take(ip(source), now)).count()
    }

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate() {
        let now = Instant::now();
        let answers = Answers::new(10, 25, now);
        assert_eq!(sent(&answers, "192.0.2.1", now), 25);
        assert_eq!(
            sent(&answers, "192.0.2.1", now + Duration::from_millis(99)),
            0
        );
        assert_eq!(
            sent(&answers, "192.0.2.1", now + Duration::from_millis(100)),
            1
        );
        assert_eq!(sent(&answers, "192.0.2.1", now + Duration::from_secs(1)), 9);
        assert_eq!(
            sent(&answers, "192.0.2.1", now + Duration::from_secs(3600)),
            25
        );
        // A clock never goes back, but a batch may be looked at with an older moment.
        assert_eq!(sent(&answers, "192.0.2.1", now), 0);
    }

    #[test]
    fn sources_are_apart_and_a_link_is_one_source() {
        let now = Instant::now();
        let answers = Answers::new(1, 3, now);
        assert_eq!(sent(&answers, "2001:db8:0:1::1", now), 3);
        assert_eq!(
            sent(&answers, "2001:db8:0:1:ffff::9", now),
            0,
            "the same /64"
        );
        assert_eq!(sent(&answers, "192.0.2.1", now), 3);
        assert_eq!(
            sent(&answers, "::ffff:192.0.2.1", now),
            0,
            "the same address"
        );
        // A few fall into buckets of others.
        let others = (0..200).map(|n| sent(&answers, &format!("198.51.100.{n}"), now));
        assert!(others.filter(|&n| n == 3).count() > 180);
    }

    #[test]
    fn what_was_received_is_given_back() {
        let now = Instant::now();
        let answers = Answers::new(1, 2, now);
        for _ in 0..100 {
            assert!(answers.take(ip("192.0.2.1"), now));
            answers.give_back(ip("192.0.2.1"));
        }
        answers.give_back(ip("192.0.2.1"));
        answers.take(ip("192.0.2.1"), now);
        answers.forget(ip("192.0.2.1"));
        assert_eq!(
            sent(&answers, "192.0.2.1", now),
            2,
            "never more than the burst"
        );
    }

    #[test]
    fn nothing_is_kept_for_each_source_and_without_a_limit_nothing_at_all() {
        let now = Instant::now();
        let answers = Answers::new(1, 1, now);
        for n in 0..100_000_u32 {
            answers.take(IpAddr::V4(n.into()), now);
        }
        assert_eq!(answers.buckets.len(), BUCKETS);
        let unlimited = Answers::new(0, 0, now);
        assert!(unlimited.buckets.is_empty() && !unlimited.is_limited());
        assert_eq!(sent(&unlimited, "192.0.2.1", now), 1000);
    }
}
