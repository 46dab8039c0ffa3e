//! What a host knows of the database of pushed policies.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use portcullis_store::{Store, StoreError};
use tokio::sync::Notify;

/// Seats that can be brought to what is written at the same time.
const TURNS: usize = 256;

/// The database of pushed policies, and what this host knows of it.
#[derive(Debug)]
pub(in super::super) struct Stored {
    pub(in super::super) store: Store,
    /// What this host has seen of each seat.
    pub(in super::super) seen: Mutex<BTreeMap<String, Seen>>,
    /// What was wrong last, and since when; none if nothing is.
    pub(in super::super) error: Mutex<Option<(StoreError, SystemTime)>>,
    /// Whether the tables were ever read.
    pub(in super::super) has_answered: AtomicBool,
    /// Seats that went back by themselves, of which the database does not know yet.
    pub(in super::super) fall_backs: Mutex<BTreeMap<String, FallBack>>,
    /// Seats whose numbers stand for policies of another host from now on.
    pub(in super::super) foreign: Mutex<BTreeSet<String>>,
    /// Told when there is something to write.
    pub(in super::super) wake: Notify,
    /// Held while a seat is brought to what is written. Some seats share theirs.
    turns: [tokio::sync::Mutex<()>; TURNS],
}

/// What was seen of a seat last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Seen {
    pub(in super::super) revision: u64,
    pub(in super::super) active: Option<u64>,
}

/// A seat that went back from one generation to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct FallBack {
    pub(in super::super) from: u64,
    pub(in super::super) to: u64,
}

/// Whether the database of pushed policies can be used.
#[derive(Clone, Debug)]
pub struct StoreStatus {
    /// What is wrong, and since when; none if nothing is.
    pub error: Option<(StoreError, SystemTime)>,
    /// Seats that went back by themselves, of which the database does not know yet.
    pub fall_backs: usize,
}

impl Stored {
    pub(in super::super) fn new(store: Store) -> Self {
        Self {
            store,
            seen: Mutex::default(),
            error: Mutex::new(None),
            has_answered: AtomicBool::new(false),
            fall_backs: Mutex::default(),
            foreign: Mutex::default(),
            wake: Notify::new(),
            turns: [(); TURNS].map(tokio::sync::Mutex::new),
        }
    }

    pub(in super::super) fn store(&self) -> &Store {
        &self.store
    }

    /// The turn of whoever brings this seat to what is written: one after the other.
    pub(in super::super) async fn turn_of(&self, seat: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(seat);
        self.turns[hash as usize % TURNS].lock().await
    }

    /// Whether pushed policies are kept in memory, because there are no tables for them, or none that the user may read.
    pub(in super::super) fn is_memory(&self) -> bool {
        match self.error.lock().as_ref().map(|(error, _)| error) {
            Some(StoreError::NoTables { .. }) => true,
            Some(StoreError::Denied { .. }) => !self.has_answered.load(Ordering::Relaxed),
            _ => false,
        }
    }

    /// Notes how it went, and tells what is new about it.
    pub(in super::super) fn note(&self, error: Option<StoreError>) {
        let mut last = self.error.lock();
        if last.as_ref().map(|(error, _)| error) == error.as_ref() {
            return;
        }
        let since = SystemTime::now();
        let had_answered = self.has_answered.load(Ordering::Relaxed);
        match &error {
            Some(error @ StoreError::NoTables { .. }) => {
                tracing::info!(
                    event = "policies_in_memory",
                    "pushed policies are kept until the host ends: {error}"
                );
            }
            Some(error @ StoreError::Denied { .. }) if !had_answered => {
                tracing::info!(
                    event = "policies_in_memory",
                    "pushed policies are kept until the host ends: {error}"
                );
            }
            Some(error @ StoreError::Hung { .. }) => {
                tracing::error!(event = "database_hung", %error, "pushed policies of the database cannot be read");
            }
            Some(error @ StoreError::Unreachable { .. }) => {
                tracing::error!(event = "database_unreachable", %error, "pushed policies of the database cannot be read");
            }
            Some(error) => {
                tracing::error!(event = "policies_unreadable", %error, "pushed policies of the database cannot be read");
            }
            None => tracing::info!(
                event = "policies_stored",
                "pushed policies are kept in the database"
            ),
        }
        *last = error.map(|error| (error, since));
    }

    /// The tables could be read.
    pub(in super::super) fn answered(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
        self.note(None);
    }
}
