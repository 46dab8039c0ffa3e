//! How the database fares, as it is told in the log and to operators.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use portcullis_store::StoreError;

use super::Database;

/// Whether the database of pushed policies can be used.
#[derive(Clone, Debug)]
pub struct StoreStatus {
    /// What is wrong, and since when; none if nothing is.
    pub error: Option<(StoreError, SystemTime)>,
    /// Seats that went back by themselves, of which the database does not know yet.
    pub fall_backs: usize,
}

impl Database {
    /// How the database of pushed policies has fared.
    pub(in super::super) fn status(&self) -> StoreStatus {
        StoreStatus {
            error: self.error.lock().clone(),
            fall_backs: self.fall_backs.lock().len(),
        }
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
