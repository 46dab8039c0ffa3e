//! Where generations came from that were pushed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

/// What is known of a generation that was pushed, beside what it does.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The file.
    pub bytes: Arc<[u8]>,
    /// Who brought it.
    pub author: String,
    /// What its author says about it.
    pub note: String,
    /// Its signature; empty if it has none.
    pub signature: String,
    /// When it came.
    pub at: SystemTime,
}

/// Where the generations of all seats came from, by seat and number; as many as the slots keep.
#[derive(Debug, Default)]
pub(crate) struct Manifest(Mutex<BTreeMap<(String, u64), Provenance>>);

impl Manifest {
    pub(crate) fn find(&self, seat: &str, number: u64) -> Option<Provenance> {
        self.0.lock().get(&(seat.to_owned(), number)).cloned()
    }

    pub(crate) fn add(&self, seat: &str, number: u64, provenance: Provenance) {
        self.0.lock().insert((seat.to_owned(), number), provenance);
    }

    /// Forgets all of a seat.
    pub(crate) fn forget(&self, seat: &str) {
        self.0.lock().retain(|(of, _), _| of != seat);
    }

    /// Forgets what no slot keeps.
    pub(crate) fn keep(&self, seat: &str, numbers: &[u64]) {
        let is_kept = |(of, number): &(String, u64)| of != seat || numbers.contains(number);
        self.0.lock().retain(|key, _| is_kept(key));
    }
}
