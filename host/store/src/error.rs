//! What can go wrong with the store.

use portcullis_database::Failure;
use thiserror::Error;

/// Why something can't be stored or read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// There is no connection.
    #[error("can't reach the database {url}: {cause}")]
    Unreachable {
        /// The database.
        url: String,
        /// What the driver says.
        cause: String,
    },
    /// The tables are not there.
    #[error("the database {url} has no tables for policies: `portcullis db migrate` makes them")]
    NoTables {
        /// The database.
        url: String,
    },
    /// There is a connection, and no answer comes over it.
    #[error(
        "the database {url} does not answer: nothing came within {seconds} s, and the connection was given up"
    )]
    Hung {
        /// The database.
        url: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The user of the database may not read or write the tables.
    #[error(
        "the user of {url} has no right to the tables of pushed policies ({cause}): they need GRANT SELECT, INSERT, UPDATE, DELETE ON \
         each of portcullis_artifact, portcullis_generation, portcullis_seat and portcullis_tenant"
    )]
    Denied {
        /// The database.
        url: String,
        /// What the server says.
        cause: String,
    },
    /// A statement failed.
    #[error("the database {url} failed: {cause}{}", hint(.cause))]
    Failed {
        /// The database.
        url: String,
        /// What the driver says.
        cause: String,
    },
    /// A file is not what it was.
    #[error("the policy sha256:{digest} is damaged in the database {url}: push it again")]
    Damaged {
        /// The database.
        url: String,
        /// What its digest should be.
        digest: String,
    },
    /// A file is not there.
    #[error("the policy sha256:{digest} is not in the database {url}: push it again")]
    NoArtifact {
        /// The database.
        url: String,
        /// Its digest.
        digest: String,
    },
}

impl StoreError {
    /// Whether the database is away or hangs: the same may well succeed later.
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
            Failure::NoTable { url, .. } => Self::NoTables { url },
            Failure::Hung { url, seconds } => Self::Hung { url, seconds },
            Failure::Denied { url, cause } => Self::Denied { url, cause },
            Failure::NoColumn { url, cause, .. }
            | Failure::Conflict { url, cause }
            | Failure::Failed { url, cause } => Self::Failed { url, cause },
            Failure::Version { ref url, .. } => Self::Failed {
                url: url.clone(),
                cause: failure.to_string(),
            },
        }
    }
}

/// What to do about some of what databases say.
fn hint(cause: &str) -> &'static str {
    match cause {
        cause if cause.contains("readonly") => {
            "; that needs the right to write the tables portcullis_artifact, portcullis_generation, portcullis_seat and portcullis_tenant"
        }
        _ => "",
    }
}
