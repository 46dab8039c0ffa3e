//! Storage of the desired state of a seat.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portcullis_store::{Generation as StoredGeneration, NewGeneration};

use crate::policy_files::PolicyFiles;

use super::error::ShipError;
use super::state::Change;

/// Storage of the desired state of seats: the host's own memory, or a database for all hosts on it.
pub(crate) trait DesiredState: Send + Sync {
    /// Stores a policy that has been loaded. Returns its number; `None`: the slot assigns the next one.
    fn add<'a>(
        &'a self,
        files: &'a PolicyFiles,
        new: NewGeneration<'a>,
    ) -> BoxFuture<'a, Result<Option<u64>, ShipError>>;

    /// Returns the previous generation of a seat.
    fn previous<'a>(&'a self, files: &'a PolicyFiles) -> BoxFuture<'a, Result<u64, ShipError>>;

    /// Stores a change, and applies it to the seat.
    fn change<'a>(
        &'a self,
        files: &'a Arc<PolicyFiles>,
        change: Change,
        by: &'a str,
    ) -> BoxFuture<'a, Result<(), ShipError>>;

    /// Returns the stored generations of a seat, oldest first.
    fn generations<'a>(
        &'a self,
        seat: &'a str,
    ) -> BoxFuture<'a, Result<Vec<StoredGeneration>, ShipError>>;

    /// Returns the file of a generation that was not pushed to this host.
    fn bytes<'a>(
        &'a self,
        files: &'a PolicyFiles,
        number: u64,
    ) -> BoxFuture<'a, Result<Arc<[u8]>, ShipError>>;

    /// Notes an automatic fallback of a seat from one generation to another.
    fn note_fall_back(&self, files: &PolicyFiles, from: u64, to: u64);
}
