//! `trusted.…`: the table of trusted peers.

mod change;
mod find;
mod list;
mod one;

use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reply::{ReloadStatus, Timestamp, lines, milliseconds};
use super::{FromCall, Procedure, not_reloaded};
use crate::Control;
use crate::caller::Caller;

pub(crate) use change::Remove;
pub use change::TrustedAdded;
pub(crate) use find::Find;
pub use find::TrustedMatches;
pub(crate) use list::ListTrusted;
pub use list::StoredPeer;
pub(crate) use one::{Add, Delete, Replace, Show};

/// The path of the table of trusted peers.
const TRUSTED: &str = "/v1/trusted";

/// `trusted.reload`.
#[derive(Debug)]
pub(crate) struct Reload;

/// The reply of `trusted.reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrustedReload {
    /// Result.
    pub status: ReloadStatus,
    /// The table that was loaded.
    #[serde(flatten)]
    pub table: TrustedLoad,
}

/// One load of the trusted peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrustedLoad {
    /// Number of the load; 0 before the first.
    pub generation: u64,
    /// Number of valid rows.
    pub rows: u64,
    /// Whether the database has no such table.
    pub table_is_absent: bool,
    /// Disabled rows: their transport is `none`.
    pub ignored: u64,
    /// Rows that are invalid.
    pub skipped: u64,
    /// Rows with a warning: they may not mean what was intended.
    pub warned: u64,
    /// The first invalid rows, with reasons.
    pub errors: Vec<String>,
    /// The first rows with a warning.
    pub warnings: Vec<String>,
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
    type Reply = TrustedReload;

    async fn execute(self, control: &Control, _: &Caller) -> Result<TrustedReload, Fault> {
        let reloaded = control.shared.addresses.reload_trusted().await;
        reloaded.map_err(not_reloaded)?;
        Ok(TrustedReload {
            status: ReloadStatus::Ok,
            table: TrustedLoad::current(control),
        })
    }
}

impl TrustedLoad {
    /// Returns the last load.
    pub(crate) fn current(control: &Control) -> Self {
        let part = &control.shared.addresses.current().trusted;
        Self {
            generation: part.generation,
            rows: part.table.rows().len() as u64,
            table_is_absent: part.is_absent,
            ignored: part.ignored,
            skipped: part.skipped,
            warned: part.warned,
            errors: lines(&part.errors),
            warnings: lines(&part.warnings),
            loaded_at: part.loaded_at.into(),
            took_ms: milliseconds(part.took),
        }
    }
}
