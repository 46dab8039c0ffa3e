//! Why a policy did not get where it was sent.

use portcullis_policy::{LoadError, NoGeneration, SettingsError};
use portcullis_signature::SignatureError;
use portcullis_store::StoreError;
use thiserror::Error;

use crate::loader::LoaderError;

/// Why a policy did not get where it was sent.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ShipError {
    /// There is no such seat.
    #[error("there is no seat `{name}`; there are {}", .known.join(", "))]
    NoSeat {
        /// Its name.
        name: String,
        /// The names of those that are there.
        known: Vec<String>,
    },
    /// The seat follows a file.
    #[error(
        "the seat `{seat}` follows the file {file}: put the policy there, or take `file` out of its configuration"
    )]
    FollowsFile {
        /// The seat.
        seat: String,
        /// Its file.
        file: String,
    },
    /// What was sent is no policy that can serve.
    #[error(transparent)]
    Refused(#[from] LoadError),
    /// It came before the settings were changed, and does not take them.
    #[error("generation {number}: {source}")]
    Settings {
        /// The generation.
        number: u64,
        /// What is wrong.
        source: SettingsError,
    },
    /// It is not signed as it should be.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Another one is on its way to the seat.
    #[error(
        "another policy is being compiled for the seat `{seat}`: try again when it has arrived"
    )]
    Busy {
        /// The seat.
        seat: String,
    },
    /// There were many in a short time.
    #[error(
        "the seat `{seat}` takes {most} pushes a minute (key `pushes-per-minute`): try again in a few seconds"
    )]
    TooMany {
        /// The seat.
        seat: String,
        /// How many it takes.
        most: u32,
    },
    /// The generation is not there.
    #[error(transparent)]
    NoGeneration(#[from] NoGeneration),
    /// The bytes of the generation are not kept: it came from a file.
    #[error("generation {0} was not pushed, so its bytes are where its file is")]
    NotPushed(u64),
    /// The database does not take it, or does not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The load panicked or was interrupted by the end of the host.
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
