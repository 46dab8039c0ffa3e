//! A set of hashes with a time limit, in a table of fixed size. What is added replaces what ends first.

use std::sync::atomic::{AtomicU64, Ordering};

/// Each number has 32 bits of a hash and, above them, the second in which it ends.
#[derive(Debug)]
pub(crate) struct Marks(Box<[[AtomicU64; WAYS]]>);

/// Places in which a hash may be.
const WAYS: usize = 4;

impl Marks {
    /// With room for about this many.
    pub(crate) fn new(count: usize) -> Self {
        let rows = 0..count.div_ceil(WAYS);
        Self(rows.map(|_| Default::default()).collect())
    }

    /// Adds a hash up to this second.
    pub(crate) fn set(&self, hash: u64, now: u32, end: u32) {
        let row = self.row(hash);
        let same = row.iter().find(|place| is_same(load(place), hash));
        let ends_at = |place: &&AtomicU64| {
            let end = (load(place) >> 32) as u32;
            // All that are over are equal.
            end.max(now)
        };
        if let Some(place) = same.or_else(|| row.iter().min_by_key(ends_at)) {
            let number = u64::from(end) << 32 | hash & 0xffff_ffff;
            place.store(number, Ordering::Relaxed);
        }
    }

    /// Whether the hash was added and its time is not over.
    pub(crate) fn has(&self, hash: u64, now: u32) -> bool {
        self.find(hash, now).is_some()
    }

    /// The same, and removes it.
    pub(crate) fn take(&self, hash: u64, now: u32) -> bool {
        let Some((place, number)) = self.find(hash, now) else {
            return false;
        };
        let taken = place.compare_exchange(number, 0, Ordering::Relaxed, Ordering::Relaxed);
        taken.is_ok()
    }

    fn find(&self, hash: u64, now: u32) -> Option<(&AtomicU64, u64)> {
        let all = self.row(hash).iter().map(|place| (place, load(place)));
        let mut live = all.filter(|(_, number)| (number >> 32) as u32 > now);
        live.find(|(_, number)| is_same(*number, hash))
    }

    fn row(&self, hash: u64) -> &[AtomicU64; WAYS] {
        // The upper half of the hash: the lower half is stored.
        &self.0[(hash >> 32) as usize % self.0.len()]
    }
}

fn load(place: &AtomicU64) -> u64 {
    place.load(Ordering::Relaxed)
}

fn is_same(number: u64, hash: u64) -> bool {
    number != 0 && number as u32 == hash as u32
}
