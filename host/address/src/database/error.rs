//! Errors of the source of the rows.

use portcullis_database::{Failure, HasFailure};
use thiserror::Error;

use crate::row::RowError;

/// Why rows cannot be read or changed. Cloneable, because all callers that wait for a reload get the same error.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DatabaseError {
    /// The database, or its tables.
    #[error(transparent)]
    Database(#[from] Failure),
    /// The address file cannot be read.
    #[error("cannot read the address file {file}: {cause}; check `address-file` in [database]")]
    File {
        /// The file.
        file: String,
        /// The error of the system.
        cause: String,
    },
    /// The address file has entries, but no valid one.
    #[error("the address file {file} has no valid line: {first}")]
    NoUsableLine {
        /// The file.
        file: String,
        /// The first invalid line.
        first: Box<RowError>,
    },
    /// The rows are in a file, which commands do not change.
    #[error(
        "the addresses are in the file {file}, `address-file` in [database]: edit the file; changes are detected within about a second"
    )]
    IsFile {
        /// The file.
        file: String,
    },
    /// The statements succeeded, but the thread that builds the table has ended early.
    #[error("the table could not be built: {0}")]
    Build(String),
}

/// Why a row was not added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddError {
    /// The table would go without this row.
    #[error(transparent)]
    Row(#[from] RowError),
    /// There is such a row, and Kamailio's tools keep to one.
    #[error("the table `{table}` has a row with source {source_ip} already: remove it first")]
    Exists {
        /// The table.
        table: String,
        /// What stands in its column of sources, quoted.
        source_ip: String,
    },
    /// The groups would have more rows than they may.
    #[error("there are {rows} rows, and {more} more would exceed the maximum of {most}")]
    TooMany {
        /// The rows of the groups.
        rows: u64,
        /// The rows to be added.
        more: u64,
        /// The maximum.
        most: u64,
    },
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<Failure> for AddError {
    fn from(failure: Failure) -> Self {
        Self::Database(failure.into())
    }
}

impl HasFailure for DatabaseError {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Database(failure) => Some(failure),
            Self::File { .. }
            | Self::NoUsableLine { .. }
            | Self::IsFile { .. }
            | Self::Build(_) => None,
        }
    }
}

impl HasFailure for AddError {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Database(error) => error.failure(),
            Self::Row(_) | Self::Exists { .. } | Self::TooMany { .. } => None,
        }
    }
}
