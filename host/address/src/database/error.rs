//! What can go wrong with the rows' source.

use portcullis_database::Failure;
use thiserror::Error;

use crate::row::RowError;

/// Why rows can't be read or changed. Cloneable, because all who wait for one reload get it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DatabaseError {
    /// The database, or its tables.
    #[error(transparent)]
    Database(#[from] Failure),
    /// The file in place of the table can't be read.
    #[error(
        "can't read the address file {file}: {cause}; name the file as `address-file` in [database]"
    )]
    File {
        /// The file.
        file: String,
        /// What the system says.
        cause: String,
    },
    /// The file in place of the table has entries, and not one that can be used.
    #[error("the address file {file} has no line that can be used: {first}")]
    NoUsableLine {
        /// The file.
        file: String,
        /// The first of the lines.
        first: Box<RowError>,
    },
    /// The rows are in a file, which people write.
    #[error(
        "the addresses are in the file {file}, `address-file` in [database]: edit the file; a change is seen within about a second"
    )]
    IsFile {
        /// The file.
        file: String,
    },
    /// The statements are all right, but the work on their result ended early.
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
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<Failure> for AddError {
    fn from(failure: Failure) -> Self {
        Self::Database(failure.into())
    }
}
