//! `policy.reload`: load the policy file of a seat.

use portcullis_config::TokenRole;
use portcullis_rollout::policy_files::Outcome;
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::{ReloadStatus, not_reloaded};
use super::{FromCall, Procedure, digest, file_of, files_of, seat_or_default};
use crate::Control;
use crate::caller::Caller;

/// `policy.reload`.
#[derive(Debug)]
pub(crate) struct Reload {
    seat: String,
}

/// The reply of `policy.reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyReload {
    /// Result.
    pub status: ReloadStatus,
    /// The file.
    pub file: Option<String>,
    /// Active generation.
    pub generation: u64,
    /// Digest of the file.
    pub digest: String,
    /// Whether all workers use it.
    pub live_on_all_workers: bool,
}

impl FromCall for Reload {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let seat = seat_or_default(call)?;
        Ok(Self { seat })
    }
}

impl Procedure for Reload {
    type Reply = PolicyReload;

    const NEEDS: TokenRole = TokenRole::Ship;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<PolicyReload, Fault> {
        let files = files_of(control, &self.seat)?;
        let outcome = files.reload().await.map_err(not_reloaded)?;
        let id = outcome.id();
        Ok(PolicyReload {
            status: match outcome {
                Outcome::Published(_) => ReloadStatus::Ok,
                Outcome::Unchanged(_) => ReloadStatus::Unchanged,
            },
            file: file_of(&files),
            generation: id.generation,
            digest: digest(id.digest),
            live_on_all_workers: control.is_live().await,
        })
    }
}
