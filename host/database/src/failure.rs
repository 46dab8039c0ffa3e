//! Errors of a database, for its operator.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::dialect::{Meaning, driver_of};
use crate::{DatabaseUrl, Schema};

/// Why a database cannot be used. Cloneable, because all callers that wait for one operation get it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// There is no connection.
    #[error("cannot reach the database {url}: {cause}")]
    Unreachable {
        /// The database.
        url: String,
        /// The error of the driver, and what to do.
        cause: String,
    },
    /// The SQLite file does not exist (any more).
    #[error(
        "the database {url} does not exist: restore the file, or restart to begin with a new one"
    )]
    NoFile {
        /// The database.
        url: String,
    },
    /// A table does not exist.
    #[error(
        "the database {url} has no table `{table}`: create Kamailio's tables with `kamdbctl create` or `portcullis db migrate`, or name the existing table in [database]"
    )]
    NoTable {
        /// The database.
        url: String,
        /// The table.
        table: String,
    },
    /// A table lacks a column.
    #[error(
        "the tables of the database {url} do not have the expected form: {cause}; {expected}: if they have other names, give them in [database]"
    )]
    NoColumn {
        /// The database.
        url: String,
        /// Names the column, as the database reports it.
        cause: String,
        /// The required columns; see [`Failure::with_columns`].
        expected: String,
    },
    /// The table has no version, or another version than the one whose columns are known.
    #[error(
        "the database {url} says that its table `{table}` has {}, and only version {known} is known: {mend}",
        Version(found.as_deref())
    )]
    Version {
        /// The database.
        url: String,
        /// The table.
        table: String,
        /// The value found instead of the version, quoted; `None` if there is no row.
        found: Option<String>,
        /// The version whose columns are known.
        known: i64,
        /// What to do.
        mend: String,
    },
    /// There is a connection, but no answer arrives over it.
    #[error(
        "the database {url} does not answer: nothing arrived within {seconds} s, and the connection was given up"
    )]
    Hung {
        /// The database.
        url: String,
        /// How long the answer was awaited.
        seconds: u64,
    },
    /// The user lacks a privilege on the table.
    #[error(
        "the database {url} failed: {cause}; grant it to this user, or name another one in [database] url"
    )]
    Denied {
        /// The database.
        url: String,
        /// The error of the server.
        cause: String,
    },
    /// A conflict with another transaction: a retry may succeed.
    #[error("the database {url} failed: {cause}")]
    Conflict {
        /// The database.
        url: String,
        /// The error of the server.
        cause: String,
    },
    /// A statement failed.
    #[error("the database {url} failed: {cause}")]
    Failed {
        /// The database.
        url: String,
        /// The error of the driver, and what to do if that is known.
        cause: String,
    },
}

impl Failure {
    /// The same, with the required columns if one is missing.
    #[must_use]
    pub fn with_columns(mut self, schema: &Schema) -> Self {
        if let Self::NoColumn { expected, .. } = &mut self {
            *expected = schema.columns();
        }
        self
    }

    /// Whether the database is unavailable or hangs: the operation may succeed later.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Hung { .. } | Self::NoFile { .. } => true,
            Self::NoTable { .. }
            | Self::NoColumn { .. }
            | Self::Version { .. }
            | Self::Denied { .. }
            | Self::Conflict { .. }
            | Self::Failed { .. } => false,
        }
    }

    /// The time limit for a connection was exceeded.
    pub(crate) fn no_answer(url: &DatabaseUrl, waited: Duration) -> Self {
        let cause = format!(
            "no answer in {} s; check host and port in [database] url, and firewalls on the way",
            waited.as_secs()
        );
        Self::Unreachable {
            url: url.to_string(),
            cause,
        }
    }

    /// The time limit for a statement was exceeded.
    pub(crate) fn hung(url: &DatabaseUrl, waited: Duration) -> Self {
        Self::Hung {
            url: url.to_string(),
            seconds: waited.as_secs(),
        }
    }

    /// An error while connecting.
    pub(crate) fn unreachable(url: &DatabaseUrl, error: &sqlx::Error) -> Self {
        let mend = driver_of(url).mend_connecting(error);
        Self::Unreachable {
            url: url.to_string(),
            cause: format!("{}; {mend}", said(error)),
        }
    }

    /// An error of a statement.
    pub(crate) fn of(url: &DatabaseUrl, error: &sqlx::Error) -> Self {
        let cause = said(error);
        let meaning = driver_of(url).meaning(error, &cause);
        let url = url.to_string();
        match meaning {
            Meaning::NoTable(table) => Self::NoTable { url, table },
            Meaning::NoColumn => Self::NoColumn {
                url,
                cause,
                expected: String::new(),
            },
            Meaning::Denied => Self::Denied { url, cause },
            Meaning::Conflict => Self::Conflict { url, cause },
            Meaning::Other(mend) => Self::Failed {
                url,
                cause: format!("{cause}{mend}"),
            },
        }
    }
}

/// The error text of driver or server, on one line.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the driver has many errors and adds more"
)]
fn said(error: &sqlx::Error) -> String {
    let said = match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    said.replace(|c: char| c.is_control(), " ")
}

/// The version found, as text.
struct Version<'a>(Option<&'a str>);

impl fmt::Display for Version<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(found) => write!(f, "version {found}"),
            None => f.write_str("no version"),
        }
    }
}
