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
    /// The connection ended before the answer. Whether the statement was executed is not known.
    #[error("the connection to the database {url} was lost: {cause}")]
    Lost {
        /// The database.
        url: String,
        /// The error of the driver.
        cause: String,
    },
    /// The server only reads. Nothing was written.
    #[error("the database {url} failed: {cause}")]
    ReadOnly {
        /// The database.
        url: String,
        /// The error of the server, and what to do.
        cause: String,
    },
    /// The server accepts no statements now. Nothing was written.
    #[error("the database {url} does not serve: {cause}")]
    NotServing {
        /// The database.
        url: String,
        /// The error of the server, or its state.
        cause: String,
    },
    /// The server has an older state than the one that was read last, or another history.
    #[error("the database {url} is not read: {cause}")]
    Older {
        /// The database.
        url: String,
        /// The positions, and what to do.
        cause: String,
        /// Whether the histories differ: the server is no replica that has yet to catch up.
        is_other: bool,
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
            Self::Unreachable { .. }
            | Self::Hung { .. }
            | Self::NoFile { .. }
            | Self::Lost { .. }
            | Self::NotServing { .. }
            | Self::Older { .. } => true,
            Self::NoTable { .. }
            | Self::NoColumn { .. }
            | Self::Version { .. }
            | Self::Denied { .. }
            | Self::ReadOnly { .. }
            | Self::Conflict { .. }
            | Self::Failed { .. } => false,
        }
    }

    /// Whether another server of the database may do better.
    pub(crate) fn is_of_the_server(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Hung { .. }
            | Self::Lost { .. }
            | Self::NotServing { .. }
            | Self::ReadOnly { .. }
            | Self::Older { .. } => true,
            Self::NoFile { .. }
            | Self::NoTable { .. }
            | Self::NoColumn { .. }
            | Self::Version { .. }
            | Self::Denied { .. }
            | Self::Conflict { .. }
            | Self::Failed { .. } => false,
        }
    }

    /// What is known of a write that failed.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Conflict { .. } => Retry::Conflict,
            Self::NotServing { .. } | Self::ReadOnly { .. } => Retry::Elsewhere,
            Self::Lost { .. } | Self::Hung { .. } => Retry::Unknown,
            Self::Unreachable { .. } | Self::Older { .. } => Retry::Later,
            Self::NoFile { .. }
            | Self::NoTable { .. }
            | Self::NoColumn { .. }
            | Self::Version { .. }
            | Self::Denied { .. }
            | Self::Failed { .. } => Retry::No,
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
            Meaning::Lost => Self::Lost { url, cause },
            Meaning::NotServing => Self::NotServing { url, cause },
            Meaning::ReadOnly(mend) => Self::ReadOnly {
                url,
                cause: format!("{cause}{mend}"),
            },
            Meaning::Other(mend) => Self::Failed {
                url,
                cause: format!("{cause}{mend}"),
            },
        }
    }
}

/// Whether a write that failed can be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It would fail again.
    No,
    /// Nothing was written: another transaction was first.
    Conflict,
    /// Nothing was written: this server does not write now.
    Elsewhere,
    /// It may have been written.
    Unknown,
    /// Nothing was written: no server serves.
    Later,
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
