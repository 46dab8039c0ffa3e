//! The state of the database, for the log and for operators.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use portcullis_store::StoreError;

use super::Database;

/// The state of the database of pushed policies.
#[derive(Clone, Debug)]
pub struct StoreStatus {
    /// The error, and since when it has lasted; `None` if there is none.
    pub error: Option<(StoreError, SystemTime)>,
    /// Automatic fallbacks that are not stored yet.
    pub fall_backs: usize,
}

impl Database {
    /// Returns the state of the database of pushed policies.
    pub(in super::super) fn status(&self) -> StoreStatus {
        StoreStatus {
            error: self.error.lock().clone(),
            fall_backs: self.fall_backs.lock().len(),
        }
    }

    /// Whether pushed policies are kept in memory, because the tables do not exist or the user may not read them.
    pub(in super::super) fn is_memory(&self) -> bool {
        match self.error.lock().as_ref().map(|(error, _)| error) {
            Some(StoreError::NoTables { .. }) => true,
            Some(StoreError::Denied { .. }) => !self.has_answered.load(Ordering::Relaxed),
            _ => false,
        }
    }

    /// Notes the result of an access, and logs it if it differs from the previous one.
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

    /// Notes that the tables have been read.
    pub(in super::super) fn answered(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
        self.note(None);
    }
}
