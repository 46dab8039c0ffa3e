//! Limits what one source gets of the host: responses that the host itself sends, and TLS handshakes.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use portcullis_rate::{Clock, Due, each};

/// Buckets of one worker. Sources that hash to the same bucket share its rate.
const BUCKETS: usize = 1 << 14;

/// A rate limiter for each source, an IPv4 address or an IPv6 /64. The table has a fixed size, and a response costs a few
/// instructions. The hash is keyed, so that nobody outside can predict which sources share a bucket.
#[derive(Debug)]
pub(crate) struct Answers {
    buckets: Box<[Due]>,
    hasher: RandomState,
    /// Nanoseconds that each response takes.
    each: u64,
    /// Nanoseconds that the responses of a burst take.
    burst: u64,
    clock: Clock,
}

impl Answers {
    /// With `per_second` 0 there is no limit.
    pub(crate) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let count = if per_second == 0 { 0 } else { BUCKETS };
        let each = each(per_second);
        Self {
            buckets: (0..count).map(|_| Due::default()).collect(),
            hasher: RandomState::new(),
            each,
            burst: each.saturating_mul(burst.into()),
            clock: Clock::starting(now),
        }
    }

    /// Whether there is any limit.
    pub(crate) fn is_limited(&self) -> bool {
        !self.buckets.is_empty()
    }

    /// Counts one response to this source; false if the source has reached its limit.
    pub(crate) fn take(&self, source: IpAddr, now: Instant) -> bool {
        let bucket = self.bucket(source);
        bucket.is_none_or(|due| due.take(self.clock.at(now), self.each, self.burst))
    }

    /// Returns one response to the bucket: its receiver has proved that it received it.
    pub(crate) fn give_back(&self, source: IpAddr) {
        if let Some(due) = self.bucket(source) {
            due.give_back(self.each);
        }
    }

    /// Empties the bucket of the source: it is in the address table.
    pub(crate) fn forget(&self, source: IpAddr) {
        if let Some(due) = self.bucket(source) {
            due.clear();
        }
    }

    fn bucket(&self, source: IpAddr) -> Option<&Due> {
        let source = source.to_canonical();
        let prefix = match source {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            // The /64 prefix. IPv4 addresses never have its top bits.
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        let hash = self.hasher.hash_one((source.is_ipv4(), prefix));
        self.buckets.get(hash as usize % BUCKETS)
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
