//! Errors of the directory.

use portcullis_database::Failure;
use thiserror::Error;

/// Why the table of hosts cannot be read or written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DirectoryError {
    /// The table does not exist.
    #[error("the database {url} has no table `portcullis_host`: `portcullis db migrate` makes it")]
    NoTable {
        /// The database.
        url: String,
    },
    /// The user lacks a privilege.
    #[error(
        "the user of {url} has no right to the table of hosts ({cause}): hosts need GRANT SELECT, INSERT, UPDATE, DELETE ON portcullis_host; \
         `announce = false` in [fleet] does without"
    )]
    Denied {
        /// The database.
        url: String,
        /// The error of the server.
        cause: String,
    },
    /// The database only reads, as a standby does.
    #[error(
        "the database {url} cannot be written ({cause}): name the primary in [database] url, or set `announce = false` in [fleet]"
    )]
    ReadOnly {
        /// The database.
        url: String,
        /// The error of the server.
        cause: String,
    },
    /// The database is away, or a statement failed.
    #[error(transparent)]
    Database(Failure),
}

impl DirectoryError {
    /// Whether the error stays until somebody changes something in the database.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::NoTable { .. } | Self::Denied { .. } | Self::ReadOnly { .. } => true,
            Self::Database(_) => false,
        }
    }
}

impl From<Failure> for DirectoryError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoTable { url, .. } => Self::NoTable { url },
            Failure::Denied { url, cause } => Self::Denied { url, cause },
            Failure::ReadOnly { url, cause } => Self::ReadOnly { url, cause },
            Failure::Failed { url, cause } if is_read_only(&cause) => Self::ReadOnly { url, cause },
            other @ (Failure::Unreachable { .. }
            | Failure::NoFile { .. }
            | Failure::NoColumn { .. }
            | Failure::Version { .. }
            | Failure::Hung { .. }
            | Failure::Conflict { .. }
            | Failure::Lost { .. }
            | Failure::NotServing { .. }
            | Failure::Older { .. }
            | Failure::Failed { .. }) => Self::Database(other),
        }
    }
}

/// The words of SQLite, PostgreSQL, and MySQL and MariaDB.
fn is_read_only(cause: &str) -> bool {
    ["readonly", "read-only"]
        .iter()
        .any(|words| cause.contains(words))
}
