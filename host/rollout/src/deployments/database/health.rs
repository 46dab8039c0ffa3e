//! Whether the database of pushed policies can be used.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use portcullis_store::StoreError;

/// What the last access to the database has shown.
#[derive(Debug, Default)]
pub(in crate::deployments) struct Health {
    /// The last error, and since when it has lasted; `None` if there is none.
    error: Mutex<Option<(StoreError, SystemTime)>>,
    /// Whether the tables have ever been read.
    has_answered: AtomicBool,
    /// When this host last knew the state of all seats; `None` before the first time.
    looked_at: Mutex<Option<Instant>>,
}

impl Health {
    /// Returns the error, and since when it has lasted; `None` if there is none.
    pub(super) fn error(&self) -> Option<(StoreError, SystemTime)> {
        self.error.lock().clone()
    }

    /// Returns when this host last knew the state of all seats; `None` before the first time.
    pub(super) fn looked_at(&self) -> Option<Instant> {
        *self.looked_at.lock()
    }

    /// Notes that this host knows the state of all seats.
    pub(in crate::deployments) fn looked(&self) {
        *self.looked_at.lock() = Some(Instant::now());
    }

    /// Whether there is an error.
    pub(super) fn is_impaired(&self) -> bool {
        self.error.lock().is_some()
    }

    /// Whether pushed policies are kept in memory, because the tables do not exist or the user may not read them. Tables that have been read before are
    /// awaited: they are missing for a moment while a backup is restored, and a push to memory would be lost then.
    pub(in crate::deployments) fn is_memory(&self) -> bool {
        match self.error.lock().as_ref().map(|(error, _)| error) {
            Some(StoreError::NoTables { .. } | StoreError::Denied { .. }) => {
                !self.has_answered.load(Ordering::Relaxed)
            }
            Some(
                StoreError::Unreachable { .. }
                | StoreError::Hung { .. }
                | StoreError::Failed { .. }
                | StoreError::Damaged { .. }
                | StoreError::NoArtifact { .. },
            )
            | None => false,
        }
    }

    /// Notes the result of an access, and logs it if it differs from the previous one.
    pub(in crate::deployments) fn note(&self, error: Option<StoreError>) {
        let mut last = self.error.lock();
        if last.as_ref().map(|(error, _)| error) == error.as_ref() {
            return;
        }
        let since = SystemTime::now();
        let had_answered = self.has_answered.load(Ordering::Relaxed);
        match &error {
            Some(error @ (StoreError::NoTables { .. } | StoreError::Denied { .. }))
                if !had_answered =>
            {
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
    pub(in crate::deployments) fn answered(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
        self.looked();
        self.note(None);
    }
}
