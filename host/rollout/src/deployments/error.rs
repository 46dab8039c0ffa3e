//! Errors of deployments.

use portcullis_policy::{LoadError, NoGeneration, SettingsError};
use portcullis_signature::SignatureError;
use portcullis_store::StoreError;
use thiserror::Error;

use crate::loader::LoaderError;

/// Why a policy was not deployed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ShipError {
    /// The seat does not exist.
    #[error("there is no seat `{name}`; there are {}", .known.join(", "))]
    NoSeat {
        /// Name of the seat.
        name: String,
        /// Names of the existing seats.
        known: Vec<String>,
    },
    /// The seat follows a file.
    #[error(
        "the seat `{seat}` follows the file {file}: put the policy there, or remove `file` from its configuration"
    )]
    FollowsFile {
        /// The seat.
        seat: String,
        /// The file.
        file: String,
    },
    /// The file is not a policy that can be activated.
    #[error(transparent)]
    Refused(#[from] LoadError),
    /// An earlier generation does not accept the current settings.
    #[error("generation {number}: {source}")]
    Settings {
        /// Number of the generation.
        number: u64,
        /// The error.
        source: SettingsError,
    },
    /// The signature is missing or invalid.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Another policy is being deployed to the seat.
    #[error("another policy is being compiled for the seat `{seat}`: try again later")]
    Busy {
        /// The seat.
        seat: String,
    },
    /// Too many pushes per minute.
    #[error(
        "the seat `{seat}` accepts {most} pushes per minute (key `pushes-per-minute`): try again in a few seconds"
    )]
    TooMany {
        /// The seat.
        seat: String,
        /// Most pushes per minute.
        most: u32,
    },
    /// The generation does not exist.
    #[error(transparent)]
    NoGeneration(#[from] NoGeneration),
    /// The previous generation was taken out of service: a rollback would bring back what failed.
    #[error(
        "the generation before the active one is {number}, which was taken out of service because its calls failed: name the generation to roll \
         back to (`portcullis policy list {seat}`)"
    )]
    PreviousFailed {
        /// The seat.
        seat: String,
        /// Number of the generation.
        number: u64,
    },
    /// The bytes of the generation are not stored, because it was loaded from a file.
    #[error("generation {0} was loaded from a file; only pushed generations can be downloaded")]
    NotPushed(u64),
    /// The database refuses a read or write.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The load panicked, or the host ended meanwhile.
    #[error("the load of the policy was interrupted")]
    Interrupted,
}

impl From<LoaderError> for ShipError {
    fn from(error: LoaderError) -> Self {
        match error {
            LoaderError::Refused(error) => Self::Refused(error),
            LoaderError::Interrupted => Self::Interrupted,
        }
    }
}
