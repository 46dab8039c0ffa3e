//! The counters and rate limits of one seat that the hosts of a fleet count together.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::hash::Hasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::bucket::Bucket;
use super::footing::{Footing, Peers};

/// Number of shards, each with its own lock.
const SHARDS: usize = 16;

/// Number of entries from which the one to evict is chosen.
const SAMPLE: usize = 16;

const SECOND: u64 = 1_000_000_000;

/// The counters and rate limits of one seat whose names begin with certain prefixes.
#[derive(Debug)]
pub struct FleetCounters {
    begun: Instant,
    /// The upper bits of all keys: a hash of the seat's name. The last bit is that of the kind.
    seat: u32,
    name: Box<str>,
    prefixes: Box<[Box<str>]>,
    max_per_shard: usize,
    /// Made for the first entry.
    shards: OnceLock<Box<[Mutex<Shard>; SHARDS]>>,
    evicted: AtomicU64,
    has_changes: AtomicBool,
    footing: Arc<Footing>,
}

/// A total of this host, or the sum of the other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetItem {
    /// What is counted. Equal on all hosts.
    pub key: [u8; 16],
    /// How much.
    pub value: u64,
    /// Nanoseconds until the item does not count any more.
    pub lasts: u64,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<u128, Entry>,
    /// Keys of changed entries; some may be gone, or there twice.
    changed: Vec<u128>,
    /// Whether there are changed entries that are not in `changed`.
    is_overfull: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When the entry was last used, in nanoseconds since `begun`.
    used: u64,
    /// Whether the other hosts do not know of the last change.
    is_changed: bool,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Counter(Counter),
    Bucket(Bucket),
}

/// What this host and the others have counted, each until its end.
#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    mine: u64,
    ends: u64,
    others: u64,
    others_end: u64,
}

impl FleetCounters {
    pub(super) fn new(name: &str, most: usize, prefixes: &[String], footing: Arc<Footing>) -> Self {
        Self {
            begun: Instant::now(),
            seat: seat_hash(name),
            name: name.into(),
            prefixes: prefixes
                .iter()
                .map(|prefix| prefix.as_str().into())
                .collect(),
            max_per_shard: most.div_ceil(SHARDS).max(1),
            shards: OnceLock::new(),
            evicted: AtomicU64::new(0),
            has_changes: AtomicBool::new(false),
            footing,
        }
    }

    /// Whether the fleet counts this name together.
    #[inline]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.prefixes
            .iter()
            .any(|prefix| name.starts_with(&**prefix))
    }

    /// As [`Counters::add`](crate::Counters). A counter that the others have begun ends with theirs.
    pub(crate) fn add(&self, name: &str, amount: u64, seconds: u32, now: Instant) -> u64 {
        let now = self.since_begun(now);
        let ends = now.saturating_add(u64::from(seconds) * SECOND);
        let key = self.key(false, name);
        let mut shard = self.shard(key);
        let entry = self.entry(&mut shard, key, now);
        let What::Counter(counter) = &mut entry.what else {
            return amount;
        };
        let others = counter.others(now);
        if counter.ends > now {
            counter.mine = counter.mine.saturating_add(amount);
        } else {
            counter.mine = amount;
            counter.ends = match counter.others_end > now {
                true => counter.others_end,
                false => ends,
            };
        }
        let sum = counter.mine.saturating_add(others);
        self.note(&mut shard, key);
        sum
    }

    /// The value of a counter; 0 if there is no such counter.
    pub(crate) fn value(&self, name: &str, now: Instant) -> u64 {
        if self.shards.get().is_none() {
            return 0;
        }
        let now = self.since_begun(now);
        let key = self.key(false, name);
        let mut shard = self.shard(key);
        let Some(entry) = shard.entries.get_mut(&key) else {
            return 0;
        };
        entry.used = now;
        match entry.what {
            What::Counter(counter) => counter.mine(now).saturating_add(counter.others(now)),
            What::Bucket(_) => 0,
        }
    }

    /// Takes one token from a bucket whose tokens take `each` nanoseconds; false if the bucket is empty. While the others are not heard, the bucket
    /// has a share of the rate and of the burst.
    pub(crate) fn take(&self, name: &str, each: u64, burst: u32, now: Instant) -> bool {
        let now = self.since_begun(now);
        let key = self.key(true, name);
        let mut shard = self.shard(key);
        let entry = self.entry(&mut shard, key, now);
        let What::Bucket(bucket) = &mut entry.what else {
            return false;
        };
        let is_taken = bucket.take(each, burst, self.footing.peers(), now);
        if is_taken {
            self.note(&mut shard, key);
        }
        is_taken
    }

    /// Number of counters and buckets.
    pub(crate) fn len(&self) -> usize {
        let shards = self.shards.get().into_iter().flat_map(|shards| &**shards);
        shards.map(|shard| shard.lock().entries.len()).sum()
    }

    /// Number of entries that were evicted before they expired.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// The upper bits of all keys of this table.
    pub(super) fn seat(&self) -> u32 {
        self.seat
    }

    /// Adds to `items`, until there are `most`, what has changed on this host since the last call. Buckets wait until the others are heard: only then is it
    /// known what of a share still counts.
    pub(super) fn take_changes(&self, items: &mut Vec<FleetItem>, most: usize, now: Instant) {
        if !self.has_changes.swap(false, Ordering::Relaxed) {
            return;
        }
        let now = self.since_begun(now);
        let is_silent = matches!(self.footing.peers(), Peers::Silent { .. });
        let mut later = Vec::new();
        for shard in self.shards.get().into_iter().flat_map(|shards| &**shards) {
            let mut shard = shard.lock();
            let Shard {
                entries,
                changed,
                is_overfull,
            } = &mut *shard;
            if std::mem::take(is_overfull) {
                let all = entries.iter().filter(|(_, entry)| entry.is_changed);
                changed.clear();
                changed.extend(all.map(|(key, _)| *key));
            }
            while items.len() < most
                && let Some(key) = changed.pop()
            {
                if is_silent && is_bucket(key) {
                    later.push(key);
                    continue;
                }
                let entry = entries.get_mut(&key).filter(|entry| entry.is_changed);
                let Some(entry) = entry else {
                    continue;
                };
                entry.is_changed = false;
                let (value, ends) = match &mut entry.what {
                    What::Counter(counter) => (counter.mine, counter.ends),
                    What::Bucket(bucket) => bucket.tell(now),
                };
                if ends > now {
                    items.push(FleetItem {
                        key: key.to_be_bytes(),
                        value,
                        lasts: ends - now,
                    });
                }
            }
            changed.append(&mut later);
            if !changed.is_empty() {
                self.has_changes.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Takes over what the others have in total.
    pub(super) fn merge(&self, others: &FleetItem, now: Instant) {
        let now = self.since_begun(now);
        let key = u128::from_be_bytes(others.key);
        let mut shard = self.shard(key);
        let used = shard.entries.get(&key).map(|entry| entry.used);
        if used.is_none() && others.value == 0 {
            return;
        }
        let entry = self.entry(&mut shard, key, now);
        entry.used = used.unwrap_or(now);
        match &mut entry.what {
            What::Counter(counter) => {
                counter.others = others.value;
                counter.others_end = now.saturating_add(others.lasts);
            }
            What::Bucket(bucket) => {
                bucket.hear(others.value, others.lasts, self.footing.peers(), now);
            }
        }
    }

    /// Finds or makes the entry, in use now.
    fn entry<'s>(&self, shard: &'s mut Shard, key: u128, now: u64) -> &'s mut Entry {
        if shard.entries.len() >= self.max_per_shard && !shard.entries.contains_key(&key) {
            self.make_room(shard, now);
        }
        let place = match shard.entries.entry(key) {
            Place::Occupied(found) => found.into_mut(),
            Place::Vacant(free) => free.insert(Entry {
                used: now,
                is_changed: false,
                what: What::new(key),
            }),
        };
        place.used = now;
        place
    }

    /// Notes that the entry has changed.
    fn note(&self, shard: &mut Shard, key: u128) {
        let Some(entry) = shard.entries.get_mut(&key) else {
            return;
        };
        if entry.is_changed {
            return;
        }
        entry.is_changed = true;
        match shard.changed.len() < self.max_per_shard {
            true => shard.changed.push(key),
            false => shard.is_overfull = true,
        }
        self.has_changes.store(true, Ordering::Relaxed);
    }

    /// Removes one entry of a sample: an expired one if there is any, otherwise the least recently used one.
    fn make_room(&self, shard: &mut Shard, now: u64) {
        let sample = shard.entries.iter().take(SAMPLE);
        let oldest = sample.min_by_key(|(_, entry)| (!entry.what.is_over(now), entry.used));
        let Some((&key, entry)) = oldest else {
            return;
        };
        if !entry.what.is_over(now) {
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        shard.entries.remove(&key);
    }

    fn shard(&self, key: u128) -> MutexGuard<'_, Shard> {
        let shards = self.shards.get_or_init(Box::default);
        shards[(key % SHARDS as u128) as usize].lock()
    }

    /// The seat, the kind, and a hash of all three.
    fn key(&self, is_bucket: bool, name: &str) -> u128 {
        let mut hasher = SipHasher13::new();
        hasher.write(self.name.as_bytes());
        hasher.write_u8(0);
        hasher.write_u8(is_bucket.into());
        hasher.write(name.as_bytes());
        let low = hasher.finish128().as_u128() & (u128::MAX >> 32);
        let high = u128::from(self.seat | u32::from(is_bucket));
        (high << 96) | low
    }

    fn since_begun(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.begun);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl What {
    /// An empty entry of the kind that the key says.
    fn new(key: u128) -> Self {
        match is_bucket(key) {
            false => Self::Counter(Counter::default()),
            true => Self::Bucket(Bucket::default()),
        }
    }

    /// Whether the entry has no effect any more: an expired counter or a full bucket.
    fn is_over(&self, now: u64) -> bool {
        match self {
            Self::Counter(counter) => counter.ends <= now && counter.others_end <= now,
            Self::Bucket(bucket) => bucket.is_full(now),
        }
    }
}

impl Counter {
    fn mine(&self, now: u64) -> u64 {
        match self.ends > now {
            true => self.mine,
            false => 0,
        }
    }

    fn others(&self, now: u64) -> u64 {
        match self.others_end > now {
            true => self.others,
            false => 0,
        }
    }
}

/// Whether this is the key of a bucket.
fn is_bucket(key: u128) -> bool {
    (key >> 96) & 1 == 1
}

/// A hash of the seat's name, without its last bit.
pub(super) fn seat_hash(name: &str) -> u32 {
    let mut hasher = SipHasher13::new();
    hasher.write(name.as_bytes());
    ((hasher.finish128().as_u128() >> 96) as u32) & !1
}

#[cfg(test)]
mod tests;
