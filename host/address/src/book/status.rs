//! State of the book, and what a reload answers.

use std::sync::Arc;
use std::time::SystemTime;

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
    /// How changes are noticed; `None` before the first look.
    pub changes_seen_by: Option<ChangeSource>,
    /// Loads that succeeded.
    pub loads: u64,
    /// Loads that failed.
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
    /// Not asked yet.
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
