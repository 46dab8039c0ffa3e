//! Why a roll-out is not changed.

use portcullis_store::StoreError;
use thiserror::Error;

use crate::staged::PlanError;

use super::error::ShipError;

/// Why a roll-out is not started or changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RolloutError {
    /// The plan is wrong.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The host keeps policies in memory.
    #[error(
        "a roll-out is stored in the database, and this host has none with the tables of Portcullis: set `url` in [database], and run `portcullis db migrate`"
    )]
    NoDatabase,
    /// No host announces itself.
    #[error(
        "no host announces itself in the database, so nobody would learn what the generation does: set `announce` in [fleet] on every host"
    )]
    NoHosts,
    /// A roll-out of the seat goes on.
    #[error(
        "generation {generation} is being rolled out to the seat `{seat}`: wait for its end, or end it with `portcullis fleet rollout abort {seat}`"
    )]
    Goes {
        /// The seat.
        seat: String,
        /// The generation.
        generation: u64,
    },
    /// Another trial goes on.
    #[error(
        "generation {candidate} is on trial at the seat `{seat}`: end it first with `portcullis policy end-trial {seat}`"
    )]
    OnTrial {
        /// The seat.
        seat: String,
        /// The candidate.
        candidate: u64,
    },
    /// Nothing is active.
    #[error("no generation is active at the seat `{0}`: activate the first one")]
    Nothing(String),
    /// The generation is active already.
    #[error("generation {generation} is active at the seat `{seat}` already")]
    Active {
        /// The seat.
        seat: String,
        /// The generation.
        generation: u64,
    },
    /// There is no roll-out.
    #[error(
        "the seat `{0}` has had no roll-out: `portcullis fleet rollout start {0} --generation N` begins one"
    )]
    Unknown(String),
    /// The roll-out is in another state.
    #[error("the roll-out of the seat `{seat}` is {state}, and cannot be {asked}")]
    State {
        /// The seat.
        seat: String,
        /// Its state.
        state: String,
        /// What was asked for.
        asked: &'static str,
    },
    /// Others change it all the time.
    #[error("the roll-out of the seat `{0}` is being changed by others: try again")]
    Busy(String),
    /// The row cannot be read.
    #[error(
        "the roll-out of the seat `{seat}` cannot be read, another version may have written it ({cause}): use that version, or end it with \
         `portcullis fleet rollout abort {seat}`"
    )]
    Unreadable {
        /// The seat.
        seat: String,
        /// What is wrong.
        cause: String,
    },
    /// The seat cannot be changed.
    #[error(transparent)]
    Ship(#[from] ShipError),
}

impl From<StoreError> for RolloutError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoTables { .. } => Self::NoDatabase,
            other @ (StoreError::Unreachable { .. }
            | StoreError::Hung { .. }
            | StoreError::Denied { .. }
            | StoreError::Failed { .. }
            | StoreError::Damaged { .. }
            | StoreError::NoArtifact { .. }) => Self::Ship(other.into()),
        }
    }
}
