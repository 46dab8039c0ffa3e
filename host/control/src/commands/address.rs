//! `address.…`: the address table.

use portcullis_address::Snapshot;
use portcullis_rollout::address_task::counts;
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reply::{ReloadStatus, Timestamp, lines, milliseconds};
use super::{FromCall, Procedure, not_reloaded};
use crate::Control;
use crate::caller::Caller;

/// `address.reload`.
#[derive(Debug)]
pub(crate) struct Reload;

/// The reply of `address.reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressReload {
    /// How it ended.
    pub status: ReloadStatus,
    /// What it brought.
    #[serde(flatten)]
    pub table: AddressLoad,
}

/// What one load of the address table brought, with the rows that need somebody's attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressLoad {
    /// Number of the load; 0 before the first.
    pub generation: u64,
    /// Rows in words, by kind.
    pub rows: String,
    /// Rows about single addresses.
    pub hosts: u64,
    /// Rows about networks.
    pub subnets: u64,
    /// Rows about names.
    pub domains: u64,
    /// Rows that can't be used.
    pub skipped: u64,
    /// Rows that may mean something else than they should.
    pub warned: u64,
    /// The first rows that can't be used, and why.
    pub errors: Vec<String>,
    /// The first rows that may mean something else.
    pub warnings: Vec<String>,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// Milliseconds that the load took.
    pub took_ms: u64,
    /// Bytes that the table takes.
    pub memory_bytes: u64,
}

impl FromCall for Reload {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Reload {
    type Reply = AddressReload;

    async fn execute(self, control: &Control, _: &Caller) -> Result<AddressReload, Fault> {
        let report = control.shared.addresses.reload().await;
        let report = report.map_err(not_reloaded)?;
        Ok(AddressReload {
            status: ReloadStatus::Ok,
            table: AddressLoad::of(&report.snapshot),
        })
    }
}

impl AddressLoad {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        Self {
            generation: snapshot.generation,
            rows: counts(&snapshot.table),
            hosts: snapshot.counts.hosts,
            subnets: snapshot.counts.subnets,
            domains: snapshot.counts.domains,
            skipped: snapshot.counts.skipped,
            warned: snapshot.counts.warned,
            errors: lines(&snapshot.errors),
            warnings: lines(&snapshot.warnings),
            loaded_at: snapshot.loaded_at.into(),
            took_ms: milliseconds(snapshot.took),
            memory_bytes: snapshot.table.memory_bytes() as u64,
        }
    }
}
