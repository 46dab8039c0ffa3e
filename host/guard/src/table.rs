//! The table of sources: a fixed number of rows, in buckets of four. A new source replaces the one of its bucket that was seen longest ago
//! and is neither held nor banned.

use crate::prefix::Prefix;
use crate::source::Source;

/// Rows in which a source may be.
const WAYS: usize = 4;

#[derive(Debug)]
pub(crate) struct Table(Box<[[Source; WAYS]]>);

impl Table {
    /// With about this many rows.
    pub(crate) fn new(rows: usize) -> Self {
        let buckets = 0..rows.div_ceil(WAYS).max(1);
        Self(buckets.map(|_| Default::default()).collect())
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        WAYS * self.0.len()
    }

    /// The row of a source.
    #[inline]
    pub(crate) fn find(&self, prefix: Prefix, hash: u64) -> Option<&Source> {
        self.bucket(hash).iter().find(|source| source.is_of(prefix))
    }

    /// The same. A source without a row gets one, unless all of its bucket are held or banned.
    #[inline]
    pub(crate) fn find_or_claim(&self, prefix: Prefix, hash: u64, now: u32) -> Option<&Source> {
        match self.find(prefix, hash) {
            Some(source) => Some(source),
            None => self.claim(prefix, hash, now),
        }
    }

    fn claim(&self, prefix: Prefix, hash: u64, now: u32) -> Option<&Source> {
        let free = self.bucket(hash).iter().filter(|row| !row.is_barred(now));
        let oldest = free.min_by_key(|row| row.last_seen())?;
        oldest.claim(prefix).then_some(oldest)
    }

    /// All rows.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Source> {
        self.0.iter().flatten()
    }

    fn bucket(&self, hash: u64) -> &[Source; WAYS] {
        // The lower bits are in the bar of a source.
        &self.0[(hash >> 24) as usize % self.0.len()]
    }
}
