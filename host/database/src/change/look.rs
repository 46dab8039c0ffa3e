//! What a look at a table finds, and how changes are noticed.

use std::fmt;

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The table is as it was at the last look.
    Same,
    /// It may have changed since.
    Changed,
    /// Nothing tells of a change, and nothing would be lost but the memory of the server.
    Quiet,
    /// The database does not say.
    Unknown,
}

/// How changes are noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeSource {
    /// By the number that SQLite counts up with each change of the file by others.
    DataVersion,
    /// By the time of the last change, which the server knows for tables of this engine.
    UpdateTime {
        /// The engine, in the server's words.
        engine: String,
    },
    /// By the snapshot of PostgreSQL's transactions and the counters of the table. While others write to the server, the table is also
    /// read every now and then, and compared.
    Snapshot,
    /// By the size and the times of a file that stands in place of the table.
    FileStamp,
    /// Not at all: the table is read every now and then, and compared.
    Reread {
        /// Why there is no better way.
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
