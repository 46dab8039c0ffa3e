//! What a look at a table finds, and how changes are noticed.

use std::fmt;

/// The result of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The table has not changed since the last poll.
    Same,
    /// The table may have changed since the last poll.
    Changed,
    /// The server reports no change, but has no time of the last change since its restart.
    Quiet,
    /// The database does not say.
    Unknown,
}

/// The method of change detection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeSource {
    /// By SQLite's counter, which is incremented with each change of the file by other connections.
    DataVersion,
    /// By the time of the last change, which the server records for tables of this engine.
    UpdateTime {
        /// The engine, as named by the server.
        engine: String,
    },
    /// By PostgreSQL's transaction snapshot and the counters of the table. While others write to the server, the table is also read at
    /// intervals, and compared.
    Snapshot,
    /// By the size and the times of a file that replaces the table.
    FileStamp,
    /// None: the table is read at intervals, and compared.
    Reread {
        /// Why there is no better method.
        why: String,
    },
}

impl fmt::Display for ChangeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataVersion => f.write_str("data_version of the SQLite file"),
            Self::UpdateTime { engine } => write!(f, "UPDATE_TIME of the {engine} table"),
            Self::Snapshot => f.write_str("pg_current_snapshot() and the counters of the table"),
            Self::FileStamp => f.write_str("size and times of the file"),
            Self::Reread { why } => write!(f, "reading it again ({why})"),
        }
    }
}
