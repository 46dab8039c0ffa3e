//! State of the book, and the result of a reload.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::parts::PartStatus;
use super::snapshot::Snapshot;
use crate::database::{ChangeSource, DatabaseError};

/// The result of a successful reload.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// The current snapshot.
    pub snapshot: Arc<Snapshot>,
}

/// State of the book.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Whether the database answers.
    pub database: DatabaseState,
    /// When the database last answered a check for changes, or a load; `None` before the first.
    pub looked_at: Option<Instant>,
    /// How changes are detected; `None` before the first check.
    pub changes_seen_by: Option<ChangeSource>,
    /// Number of successful loads.
    pub loads: u64,
    /// Number of failed loads.
    pub failures: u64,
    /// The last failure, if the last load failed.
    pub last_error: Option<DatabaseError>,
    /// State of the trusted peers.
    pub trusted: PartStatus,
    /// State of the rules.
    pub rules: PartStatus,
}

/// Whether the database answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DatabaseState {
    /// Not queried yet.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down {
        /// Since when.
        since: SystemTime,
    },
}
