//! What can go wrong with a database.

use thiserror::Error;

use crate::row::RowError;

/// The version of the table `address` that Kamailio 3 to 6 have.
pub(crate) const TABLE_VERSION: i64 = 6;

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
        "the database {url} has no table `{table}`: create Kamailio's tables with `kamdbctl create`, or with the statements in {migrations}"
    )]
    NoTable {
        /// The database.
        url: String,
        /// The table.
        table: &'static str,
        /// Where the statements are.
        migrations: &'static str,
    },
    /// A table lacks a column.
    #[error(
        "the tables of the database {url} are not Kamailio's: {cause}; table `address` needs the columns id, grp, ip_addr, mask, port, tag, and table `version` the columns table_name, table_version"
    )]
    NoColumn {
        /// The database.
        url: String,
        /// Names the column, in the words of the database.
        cause: String,
    },
    /// The table has another version than the one whose columns we know.
    #[error(
        "the table `address` in {url} has version {found}, and only version {TABLE_VERSION} is known: upgrade the database with Kamailio's tools, or set its row in `version` right"
    )]
    Version {
        /// The database.
        url: String,
        /// The version, or what stands in its place.
        found: String,
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
    /// A text is longer than its column.
    #[error("{column} has {length} characters, and the column holds {most}")]
    TooLong {
        /// The column.
        column: &'static str,
        /// The length of the text in characters.
        length: usize,
        /// The most that fit.
        most: usize,
    },
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}
