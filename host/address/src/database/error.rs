//! What can go wrong with a database.

use std::fmt;

use thiserror::Error;

use crate::row::RowError;

/// The version of the table of addresses that Kamailio 3 to 6 have.
pub(crate) const ADDRESS_VERSION: i64 = 6;

/// The version of the table of trusted peers that Kamailio 3 to 6 have.
pub(crate) const TRUSTED_VERSION: i64 = 6;

/// Why a database cannot be used. Cloneable, because all who wait for one reload get it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// There is no connection.
    #[error("can't reach the database {url}: {cause}")]
    Unreachable {
        /// The database.
        url: String,
        /// What the driver says, and what to do.
        cause: String,
    },
    /// The file of SQLite is not there (any more).
    #[error(
        "the database {url} is not there: put the file back, or restart to begin with a new one"
    )]
    NoFile {
        /// The database.
        url: String,
    },
    /// A table is not there.
    #[error(
        "the database {url} has no table `{table}`: create Kamailio's tables with `kamdbctl create` or `portcullis db migrate`, or name the table that is there in [database]"
    )]
    NoTable {
        /// The database.
        url: String,
        /// The table.
        table: String,
    },
    /// A table lacks a column.
    #[error(
        "the tables of the database {url} are not as they should be: {cause}; {expected}: if they have other names, give them in [database]"
    )]
    NoColumn {
        /// The database.
        url: String,
        /// Names the column, in the words of the database.
        cause: String,
        /// The columns that are needed.
        expected: String,
    },
    /// The table has another version than the one whose columns we know, or none.
    #[error(
        "the database {url} says that its table `{table}` has {}, and only version {known} is known: {mend}",
        Version(found.as_deref())
    )]
    Version {
        /// The database.
        url: String,
        /// The table.
        table: String,
        /// What stands in place of the version, quoted; none when there is no row.
        found: Option<String>,
        /// The version whose columns we know.
        known: i64,
        /// What to do.
        mend: String,
    },
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
    /// A statement failed.
    #[error("the database {url} failed: {cause}")]
    Failed {
        /// The database.
        url: String,
        /// What the driver says.
        cause: String,
    },
    /// The statements are all right, but the work on their result ended early.
    #[error("the table could not be built: {0}")]
    Build(String),
}

/// Why a row was not added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
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

/// A version that was found, in words.
struct Version<'a>(Option<&'a str>);

impl fmt::Display for Version<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(found) => write!(f, "version {found}"),
            None => f.write_str("no version"),
        }
    }
}
