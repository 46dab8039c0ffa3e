//! `address.…`: the address table.

mod change;
mod changes;
mod find;
mod import;
mod list;
mod one;
mod rights;
mod row;
mod work;

use portcullis_address::{AddError, DatabaseError, Snapshot};
use portcullis_rollout::address_task::counts;
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reply::{ReloadStatus, Timestamp, lines, milliseconds};
use super::{ADDRESSES_IN_FILE, FromCall, Procedure, not_reloaded, of_database};
use crate::Control;
use crate::caller::Caller;

pub(crate) use change::Remove;
pub use change::{AddressAdded, RowsRemoved};
pub(crate) use changes::ChangeRows;
pub use changes::RowsWereChanged;
pub(crate) use find::Find;
pub use find::{AddressMatches, MatchedRow};
pub(crate) use import::Import;
pub use import::RowsImported;
pub(crate) use list::ListAddresses;
pub use list::{AddressRow, AddressRows};
pub(crate) use one::{Add, Delete, Replace, Show};
pub(crate) use rights::Rights;
pub(crate) use row::{AddRow, DeleteRow, ReplaceRow, ShowRow, Table};
pub(super) use work::{read_database, with_database, with_rows};

/// The path of the table of addresses.
const ADDRESSES: &str = "/v1/addresses";

/// Error statuses of changes of the table.
const CHANGES: &[u16] = &[404, 408, 409, 413, 415, 422, 503];

/// The largest body of many rows or changes, in bytes.
const MOST_BYTES: usize = 16 << 20;

/// Most invalid rows that an error lists.
const MOST_LISTED: usize = 20;

/// `address.reload`.
#[derive(Debug)]
pub(crate) struct Reload;

/// The reply of `address.reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressReload {
    /// Result.
    pub status: ReloadStatus,
    /// The table that was loaded.
    #[serde(flatten)]
    pub table: AddressLoad,
}

/// One load of the address table, with the rows that need attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressLoad {
    /// Number of the load; 0 before the first.
    pub generation: u64,
    /// Description of the rows by kind.
    pub rows: String,
    /// Rows about single addresses.
    pub hosts: u64,
    /// Rows about networks.
    pub subnets: u64,
    /// Rows about names.
    pub domains: u64,
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
    /// Memory of the table in bytes.
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

/// The fault of a table that cannot be read or changed.
pub(super) fn fault(error: &DatabaseError) -> Fault {
    match error {
        DatabaseError::IsFile { .. } => {
            Fault::new(409, error.to_string()).because(ADDRESSES_IN_FILE)
        }
        DatabaseError::Database(_)
        | DatabaseError::File { .. }
        | DatabaseError::NoUsableLine { .. }
        | DatabaseError::Build(_) => of_database(503, error),
    }
}

/// The fault of a row that is not added.
pub(super) fn not_added(error: &AddError) -> Fault {
    match error {
        AddError::Row(error) => Fault::new(422, error.to_string()),
        AddError::TooMany { .. } => {
            let text = format!(
                "the groups that the tenant may change are full (`edit-rows` in its section): {error}; remove some"
            );
            Fault::new(422, text)
        }
        AddError::Exists { .. } => Fault::new(409, error.to_string()),
        AddError::Database(error) => fault(error),
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
