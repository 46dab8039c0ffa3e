//! Counters and rate limits of policies, shared by all workers. A policy itself has no memory from call to call.

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::fleet::FleetCounters;

/// Number of shards. Each has its own lock, so that workers rarely contend.
const SHARDS: usize = 16;

/// Number of entries from which the one to evict is chosen.
const SAMPLE: usize = 16;

/// Maximum number of entries by default.
const DEFAULT_MOST: usize = 10_000;

/// The counters and rate limits of one tenant. Memory is bounded by the number of entries: a 128-bit hash is stored instead of the name.
#[derive(Debug)]
pub struct Counters {
    begun: Instant,
    max_per_shard: usize,
    /// Made for the first counter: most tenants have none, and the empty shards would take most of the memory of this table.
    shards: OnceLock<Box<[Shard; SHARDS]>>,
    evicted: AtomicU64,
    /// Those that the hosts of a fleet count together; `None`: none.
    fleet: Option<Arc<FleetCounters>>,
}

type Shard = Mutex<HashMap<u128, Entry>>;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When the entry was last used, in nanoseconds since `begun`.
    used: u64,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// A counter that expires at `ends`.
    Counter { value: u64, ends: u64 },
    /// A token bucket. `due` is its theoretical arrival time (generic cell rate algorithm, ITU-T I.371).
    Bucket { due: u64 },
}

impl Counters {
    /// Creates a table for at most `most` counters and buckets together.
    pub fn new(most: usize) -> Self {
        Self {
            begun: Instant::now(),
            max_per_shard: most.div_ceil(SHARDS).max(1),
            shards: OnceLock::new(),
            evicted: AtomicU64::new(0),
            fleet: None,
        }
    }

    /// Keeps those names in `fleet` that it has, beside as many others as before.
    #[must_use]
    pub fn with_fleet(self, fleet: Arc<FleetCounters>) -> Self {
        Self {
            fleet: Some(fleet),
            ..self
        }
    }

    /// Adds to a counter and returns the new value, which saturates at `u64::MAX`. The counter expires `seconds` after its first addition.
    pub(crate) fn add(&self, name: &str, amount: u64, seconds: u32, now: Instant) -> u64 {
        if let Some(fleet) = self.fleet_of(name) {
            return fleet.add(name, amount, seconds, now);
        }
        let now = self.since_begun(now);
        let ends = now.saturating_add(u64::from(seconds) * 1_000_000_000);
        self.with(b'c', name, now, |found| {
            let (value, ends) = match found {
                Some(What::Counter { value, ends }) if ends > now => (value, ends),
                Some(What::Counter { .. } | What::Bucket { .. }) | None => (0, ends),
            };
            let value = value.saturating_add(amount);
            (What::Counter { value, ends }, value)
        })
    }

    /// The value of a counter; 0 if there is no such counter.
    pub(crate) fn value(&self, name: &str, now: Instant) -> u64 {
        if let Some(fleet) = self.fleet_of(name) {
            return fleet.value(name, now);
        }
        let now = self.since_begun(now);
        if self.shards.get().is_none() {
            return 0;
        }
        let key = key(b'c', name);
        let mut shard = self.shard(key).lock();
        match shard.get_mut(&key) {
            Some(entry) => {
                entry.used = now;
                match entry.what {
                    What::Counter { value, ends } if ends > now => value,
                    What::Counter { .. } | What::Bucket { .. } => 0,
                }
            }
            None => 0,
        }
    }

    /// Takes one token from a bucket of `burst` tokens that refills at `per_second`; false if the bucket is empty. If the rate is not a
    /// positive number, the bucket is never refilled.
    pub(crate) fn rate_limit(&self, name: &str, per_second: f64, burst: u32, now: Instant) -> bool {
        if burst == 0 {
            return false;
        }
        let each = token_time(per_second);
        if let Some(fleet) = self.fleet_of(name) {
            return fleet.take(name, each, burst, now);
        }
        let now = self.since_begun(now);
        let ahead = each.saturating_mul(u64::from(burst));
        self.with(b'b', name, now, |found| {
            let due = match found {
                Some(What::Bucket { due }) => due.max(now),
                Some(What::Counter { .. }) | None => now,
            };
            let next = due.saturating_add(each);
            match next - now <= ahead {
                true => (What::Bucket { due: next }, true),
                false => (What::Bucket { due }, false),
            }
        })
    }

    /// Takes one token from the bucket without a name. For rate limits of the host itself.
    pub fn admits(&self, per_second: f64, burst: u32, now: Instant) -> bool {
        self.rate_limit("", per_second, burst, now)
    }

    /// Number of counters and buckets.
    pub fn len(&self) -> usize {
        let shards = self.shards.get().into_iter().flat_map(|shards| &**shards);
        let own: usize = shards.map(|shard| shard.lock().len()).sum();
        own + self.fleet.as_ref().map_or(0, |fleet| fleet.len())
    }

    /// Whether there are no counters and no buckets.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of entries that were evicted before they expired, because the table was full.
    pub fn evicted(&self) -> u64 {
        let fleet = self.fleet.as_ref().map_or(0, |fleet| fleet.evicted());
        self.evicted.load(Ordering::Relaxed) + fleet
    }

    /// The table of the fleet, if it has this name.
    #[inline]
    fn fleet_of(&self, name: &str) -> Option<&FleetCounters> {
        self.fleet.as_deref().filter(|fleet| fleet.has(name))
    }

    fn with<T>(
        &self,
        kind: u8,
        name: &str,
        now: u64,
        change: impl FnOnce(Option<What>) -> (What, T),
    ) -> T {
        let key = key(kind, name);
        let mut shard = self.shard(key).lock();
        if let Some(entry) = shard.get_mut(&key) {
            let (what, answer) = change(Some(entry.what));
            *entry = Entry { used: now, what };
            return answer;
        }
        if shard.len() >= self.max_per_shard {
            self.make_room(&mut shard, now);
        }
        let (what, answer) = change(None);
        shard.insert(key, Entry { used: now, what });
        answer
    }

    /// Removes one entry of a sample: an expired one if there is any, otherwise the least recently used one.
    fn make_room(&self, shard: &mut HashMap<u128, Entry>, now: u64) {
        let sample = shard.iter().take(SAMPLE);
        let oldest = sample.min_by_key(|(_, entry)| (!entry.is_over(now), entry.used));
        let Some((&key, entry)) = oldest else {
            return;
        };
        if !entry.is_over(now) {
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        shard.remove(&key);
    }

    fn shard(&self, key: u128) -> &Shard {
        let shards = self.shards.get_or_init(Box::default);
        &shards[(key % SHARDS as u128) as usize]
    }

    fn since_begun(&self, now: Instant) -> u64 {
        let since: Duration = now.saturating_duration_since(self.begun);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Entry {
    /// Whether the entry has no effect any more: an expired counter or a full bucket.
    fn is_over(&self, now: u64) -> bool {
        match self.what {
            What::Counter { ends, .. } => ends <= now,
            What::Bucket { due } => due <= now,
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new(DEFAULT_MOST)
    }
}

/// Nanoseconds per token: at least one, at most some years.
fn token_time(per_second: f64) -> u64 {
    match 1e9 / per_second {
        each if each >= 1.0 => each.min(1e17) as u64,
        _ if per_second > 0.0 => 1,
        _ => 100_000_000_000_000_000,
    }
}

/// Hashes a name. `kind` separates counters from buckets of the same name.
fn key(kind: u8, name: &str) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write_u8(kind);
    hasher.write(name.as_bytes());
    hasher.finish128().as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(counters: &Counters, milliseconds: u64) -> Instant {
        counters.begun + Duration::from_millis(milliseconds)
    }

    #[test]
    fn counters_count_until_they_expire() {
        let counters = Counters::new(100);
        let at = |milliseconds| at(&counters, milliseconds);
        assert_eq!(counters.value("calls", at(0)), 0);
        assert_eq!(counters.add("calls", 2, 10, at(0)), 2);
        assert_eq!(counters.add("calls", 3, 10, at(9_999)), 5);
        assert_eq!(counters.value("calls", at(9_999)), 5);
        assert_eq!(counters.value("other", at(9_999)), 0);
        assert_eq!(counters.value("calls", at(10_000)), 0);
        assert_eq!(counters.add("calls", 1, 10, at(10_000)), 1);
        assert_eq!(counters.add("calls", u64::MAX, 10, at(10_001)), u64::MAX);
        assert_eq!(counters.add("no time", 7, 0, at(0)), 7);
        assert_eq!(counters.value("no time", at(0)), 0);
    }

    #[test]
    fn buckets_hold_their_burst_and_fill_at_their_rate() {
        let counters = Counters::new(100);
        let taken = |milliseconds, tries| {
            let now = at(&counters, milliseconds);
            (0..tries)
                .filter(|_| counters.rate_limit("a", 2.0, 3, now))
                .count()
        };
        assert_eq!(taken(0, 10), 3);
        assert_eq!(taken(400, 10), 0);
        assert_eq!(taken(500, 10), 1);
        assert_eq!(taken(60_000, 10), 3);
        let now = at(&counters, 0);
        assert!(counters.rate_limit("b", 2.0, 3, now), "another one");
        // A counter of the same name is a different entry.
        assert_eq!(counters.value("a", now), 0);
    }

    #[test]
    fn rates_that_are_not_positive_numbers_never_refill() {
        let counters = Counters::new(100);
        let later = at(&counters, 86_400_000);
        for (n, rate) in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY]
            .into_iter()
            .enumerate()
        {
            let name = format!("never filled again {n}");
            let taken = |now| {
                (0..5)
                    .filter(|_| counters.rate_limit(&name, rate, 2, now))
                    .count()
            };
            assert_eq!((taken(counters.begun), taken(later)), (2, 0), "{rate}");
        }
        for rate in [f64::INFINITY, f64::MAX, 1e12] {
            let name = format!("fast {rate}");
            assert!(counters.rate_limit(&name, rate, 1, later), "{rate}");
        }
        assert!(!counters.rate_limit("empty", 10.0, 0, later));
        assert!(counters.rate_limit("slow", f64::MIN_POSITIVE, u32::MAX, later));
    }

    #[test]
    fn the_table_is_bounded_and_entries_in_use_stay() {
        let counters = Counters::new(1600);
        for n in 0..20_000_u64 {
            let now = at(&counters, n);
            counters.add(&format!("attacker {n}"), 1, 3600, now);
            counters.add("in use", 1, 3600, now);
        }
        assert!(counters.len() <= 1600, "{}", counters.len());
        assert!(counters.evicted() > 18_000);
        assert_eq!(counters.value("in use", at(&counters, 20_000)), 20_000);
    }

    #[test]
    fn expired_entries_are_evicted_first() {
        let counters = Counters::new(160);
        for n in 0..5_000_u64 {
            counters.add(&format!("{n}"), 1, 0, at(&counters, n));
        }
        assert!(counters.len() <= 160);
        assert_eq!(counters.evicted(), 0);
    }
}
