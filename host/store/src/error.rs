//! Errors of the store.

use portcullis_database::Failure;
use thiserror::Error;

/// Why something cannot be stored or read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// There is no connection.
    #[error("cannot reach the database {url}: {cause}")]
    Unreachable {
        /// The database.
        url: String,
        /// The error of the driver.
        cause: String,
    },
    /// The tables do not exist.
    #[error("the database {url} lacks tables of Portcullis: `portcullis db migrate` makes them")]
    NoTables {
        /// The database.
        url: String,
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
    /// The user of the database may not read or write the tables.
    #[error(
        "the user of {url} has no right to the tables of Portcullis ({cause}): they need GRANT SELECT, INSERT, UPDATE, DELETE ON \
         each of portcullis_artifact, portcullis_generation, portcullis_seat, portcullis_tenant and portcullis_rollout, and GRANT SELECT, INSERT, DELETE ON portcullis_audit"
    )]
    Denied {
        /// The database.
        url: String,
        /// The error of the server.
        cause: String,
    },
    /// A statement failed.
    #[error("the database {url} failed: {cause}{}", hint(.cause))]
    Failed {
        /// The database.
        url: String,
        /// The error of the driver.
        cause: String,
    },
    /// The content of a file does not match its digest.
    #[error("the policy sha256:{digest} is damaged in the database {url}: push it again")]
    Damaged {
        /// The database.
        url: String,
        /// The expected digest.
        digest: String,
    },
    /// A file does not exist.
    #[error("the policy sha256:{digest} is not in the database {url}: push it again")]
    NoArtifact {
        /// The database.
        url: String,
        /// Its digest.
        digest: String,
    },
}

impl StoreError {
    /// Whether the database is unavailable or hangs: the operation may succeed later.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Hung { .. })
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable { url, cause } => Self::Unreachable { url, cause },
            Failure::NoFile { url } => Self::Unreachable {
                url,
                cause: "the file is not there".to_owned(),
            },
            Failure::Lost { url, cause } => Self::Unreachable {
                url,
                cause: format!("the connection was lost: {cause}"),
            },
            Failure::NotServing { url, cause } | Failure::Older { url, cause, .. } => {
                Self::Unreachable { url, cause }
            }
            Failure::NoTable { url, .. } => Self::NoTables { url },
            Failure::Hung { url, seconds } => Self::Hung { url, seconds },
            Failure::Denied { url, cause } => Self::Denied { url, cause },
            Failure::NoColumn { url, cause, .. }
            | Failure::Conflict { url, cause }
            | Failure::ReadOnly { url, cause }
            | Failure::Failed { url, cause } => Self::Failed { url, cause },
            Failure::Version { ref url, .. } => Self::Failed {
                url: url.clone(),
                cause: failure.to_string(),
            },
        }
    }
}

/// What to do about some errors of databases.
fn hint(cause: &str) -> &'static str {
    match cause {
        cause if cause.contains("readonly") => {
            "; that needs the right to write the tables portcullis_artifact, portcullis_generation, portcullis_seat, portcullis_tenant, portcullis_rollout and portcullis_audit"
        }
        _ => "",
    }
}
