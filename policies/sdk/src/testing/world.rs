//! The state of a fake host.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::callee::Callee;
use super::clock::Clock;
use super::counters::Counters;
use super::peers::{Peers, Rules};
use super::settings::Settings;
use super::table::Table;
use crate::standing::Standing;
use crate::target::{Place, Refusal};

/// The state of the host besides the request: address table, trusted peers, allow and deny files, counters, settings, the time.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) table: Table,
    pub(super) peers: Peers,
    pub(super) rules: Rules,
    /// Shared by calls and clones, as by the workers of a host.
    pub(super) counters: Arc<Mutex<Counters>>,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) keeps_headers: bool,
    /// The standing of all sources with the guard.
    pub(super) standing: Standing,
    /// The destinations of each set of the dispatcher.
    pub(super) sets: BTreeMap<u32, Vec<String>>,
    /// Callees by the name or URI of their place.
    pub(super) callees: Vec<(String, Callee)>,
    /// Places that the host does not accept as targets.
    pub(super) refused: Vec<(String, Refusal)>,
}

impl World {
    pub(super) fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The callee at this place.
    pub(super) fn callee(&self, place: &Place) -> &Callee {
        let callee = self
            .callees
            .iter()
            .rev()
            .find(|(name, _)| name == place.as_str());
        match callee {
            Some((_, callee)) => callee,
            None => panic!(
                "the test has no callee for {}: add one with Host::callee",
                place.as_str()
            ),
        }
    }
}
