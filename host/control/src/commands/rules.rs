//! `rules.…`: the allow and deny files.

use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reply::{ReloadStatus, Timestamp, lines, milliseconds};
use super::{FromCall, Procedure, not_reloaded};
use crate::Control;
use crate::caller::Caller;

/// `rules.reload`.
#[derive(Debug)]
pub(crate) struct Reload;

/// The reply of `rules.reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RulesReload {
    /// Result.
    pub status: ReloadStatus,
    /// The rules that were loaded.
    #[serde(flatten)]
    pub rules: RulesLoad,
}

/// One load of the allow and deny files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RulesLoad {
    /// Number of the load; 0 before the first.
    pub generation: u64,
    /// Number of files.
    pub files: u64,
    /// Each pair of files with its number of lines.
    pub sets: Vec<String>,
    /// Invalid lines.
    pub skipped: u64,
    /// The first invalid lines, with reasons.
    pub errors: Vec<String>,
    /// Time of the load.
    pub loaded_at: Timestamp,
    /// Duration of the load in milliseconds.
    pub took_ms: u64,
}

impl FromCall for Reload {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Reload {
    type Reply = RulesReload;

    async fn execute(self, control: &Control, _: &Caller) -> Result<RulesReload, Fault> {
        let reloaded = control.shared.addresses.reload_rules().await;
        reloaded.map_err(not_reloaded)?;
        Ok(RulesReload {
            status: ReloadStatus::Ok,
            rules: RulesLoad::current(control),
        })
    }
}

impl RulesLoad {
    /// Returns the last load.
    pub(crate) fn current(control: &Control) -> Self {
        let part = &control.shared.addresses.current().rules;
        let sets = part.rules.names().into_iter();
        let sets = sets.map(|(name, allow, deny)| format!("{name}: {allow} allow, {deny} deny"));
        Self {
            generation: part.generation,
            files: part.files,
            sets: sets.collect(),
            skipped: part.skipped,
            errors: lines(&part.errors),
            loaded_at: part.loaded_at.into(),
            took_ms: milliseconds(part.took),
        }
    }
}
