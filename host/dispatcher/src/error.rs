//! Errors of loads and changes.

use portcullis_address::RowError;
use portcullis_database::Failure;
use thiserror::Error;

/// Why the sets cannot be read or changed. Cloneable, because all callers that wait for a reload get the same error.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DispatcherError {
    /// The database, or its table.
    #[error(transparent)]
    Database(#[from] Failure),
    /// The file cannot be read.
    #[error("cannot read the dispatcher file {file}: {cause}; check `file` in [dispatcher]")]
    File {
        /// The file.
        file: String,
        /// The error of the system.
        cause: String,
    },
    /// The file has entries, but no valid one.
    #[error("the dispatcher file {file} has no valid line: {first}")]
    NoUsableLine {
        /// The file.
        file: String,
        /// The first invalid line.
        first: Box<RowError>,
    },
    /// The rows are in a file, which commands do not change.
    #[error(
        "the sets are in the file {file}, `file` in [dispatcher]: edit the file; changes are detected within a few seconds"
    )]
    IsFile {
        /// The file.
        file: String,
    },
    /// A load would skip the row.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A load has ended early.
    #[error("the sets could not be loaded: {0}")]
    Ended(String),
}
