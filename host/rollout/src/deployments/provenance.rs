//! Provenance of pushed generations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

/// Provenance of a pushed generation.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The file.
    pub bytes: Arc<[u8]>,
    /// Who pushed it.
    pub author: String,
    /// The note of its author.
    pub note: String,
    /// Its signature; empty if it has none.
    pub signature: String,
    /// Time of the push.
    pub at: SystemTime,
}

/// Provenance of the generations of all seats, by seat and number, for the generations that slots retain.
#[derive(Debug, Default)]
pub(crate) struct Manifest(Mutex<BTreeMap<(String, u64), Provenance>>);

impl Manifest {
    pub(crate) fn find(&self, seat: &str, number: u64) -> Option<Provenance> {
        self.0.lock().get(&(seat.to_owned(), number)).cloned()
    }

    pub(crate) fn add(&self, seat: &str, number: u64, provenance: Provenance) {
        self.0.lock().insert((seat.to_owned(), number), provenance);
    }

    /// Removes all entries of a seat.
    pub(crate) fn forget(&self, seat: &str) {
        self.0.lock().retain(|(of, _), _| of != seat);
    }

    /// Removes the entries of generations that no slot retains.
    pub(crate) fn keep(&self, seat: &str, numbers: &[u64]) {
        let is_kept = |(of, number): &(String, u64)| of != seat || numbers.contains(number);
        self.0.lock().retain(|key, _| is_kept(key));
    }
}
