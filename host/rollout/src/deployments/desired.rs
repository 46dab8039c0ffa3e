//! Where it is written down what is to serve at a seat.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portcullis_store::{Generation as StoredGeneration, NewGeneration};

use crate::policy_files::PolicyFiles;

use super::error::ShipError;
use super::state::Change;

/// Decides what serves at a seat: the host's own memory, or a database for all hosts on it.
pub(crate) trait DesiredState: Send + Sync {
    /// Keeps a policy that can serve. Returns its number; `None` for the next one of its slot.
    fn add<'a>(
        &'a self,
        files: &'a PolicyFiles,
        new: NewGeneration<'a>,
    ) -> BoxFuture<'a, Result<Option<u64>, ShipError>>;

    /// The generation that served a seat before the one that serves.
    fn previous<'a>(&'a self, files: &'a PolicyFiles) -> BoxFuture<'a, Result<u64, ShipError>>;

    /// Writes a change down, and brings the seat to it.
    fn change<'a>(
        &'a self,
        files: &'a Arc<PolicyFiles>,
        change: Change,
        by: &'a str,
    ) -> BoxFuture<'a, Result<(), ShipError>>;

    /// The generations of a seat that outlive the host, the oldest first.
    fn generations<'a>(
        &'a self,
        seat: &'a str,
    ) -> BoxFuture<'a, Result<Vec<StoredGeneration>, ShipError>>;

    /// The file of a generation that this host has not got from a push.
    fn bytes<'a>(
        &'a self,
        files: &'a PolicyFiles,
        number: u64,
    ) -> BoxFuture<'a, Result<Arc<[u8]>, ShipError>>;

    /// Notes that a seat has gone back from one generation to another by itself.
    fn note_fall_back(&self, files: &PolicyFiles, from: u64, to: u64);
}
