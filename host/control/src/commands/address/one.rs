//! `address.add`, `address.show`, `address.replace` and `address.delete`, over HTTP: one row of the table of addresses.

use portcullis_address::{Database, NewRow, RowWarning, StoredRow};
use portcullis_rpc::Fault;

use super::change::{AddressAdded, RowToAdd};
use super::list::AddressRow;
use super::rights::Rights;
use super::row::{AddRow, DeleteRow, ReplaceRow, ShowRow, Table};
use super::{ADDRESSES, CHANGES, fault, not_added};
use crate::Control;

/// `address.add`.
pub(crate) type Add = AddRow<Addresses>;

/// `address.show`.
pub(crate) type Show = ShowRow<Addresses>;

/// `address.replace`.
pub(crate) type Replace = ReplaceRow<Addresses>;

/// `address.delete`.
pub(crate) type Delete = DeleteRow<Addresses>;

/// The table of addresses. A tenant sees the rows of its groups.
#[derive(Debug)]
pub(crate) struct Addresses;

impl Table for Addresses {
    type Rows = Database;
    type Stored = StoredRow;
    type New = NewRow;
    type Sent = RowToAdd;
    type Shown = AddressRow;
    type Added = AddressAdded;

    const PATH: &'static str = ADDRESSES;
    const ROW: &'static str = "/v1/addresses/{row}";
    const IS_OPEN: bool = true;
    const OPERATIONS: [[&'static str; 2]; 4] = [
        [
            "addAddress",
            "Add a row to the address table; a tenant may do so for its `edit-groups`",
        ],
        [
            "showAddress",
            "Show a row of the address table as it is stored; for a tenant, one of its groups",
        ],
        [
            "replaceAddress",
            "Replace a row of the address table; a tenant may do so for its `edit-groups`",
        ],
        [
            "deleteAddress",
            "Remove a row of the address table; a tenant may do so for its `edit-groups`",
        ],
    ];
    const NOT_ADDED: &'static [u16] = CHANGES;
    const REFUSED: &'static [u16] = CHANGES;

    fn rows(control: &Control) -> Database {
        control.shared.addresses.database().clone()
    }

    fn read(sent: RowToAdd) -> Result<NewRow, Fault> {
        sent.into_row()
    }

    fn subject(new: &NewRow) -> String {
        format!("{} {}/{}", new.group, new.ip_addr, new.mask)
    }

    fn added(id: Option<i64>, new: NewRow, warning: Option<RowWarning>) -> AddressAdded {
        AddressAdded::of(id, new, warning)
    }

    fn sees(rights: &Rights, row: &StoredRow) -> bool {
        match group_of(row) {
            Some(group) => rights.sees(group),
            None => rights.is_operator(),
        }
    }

    /// A row without a valid group is seen by the operator only, who may change every row.
    fn check_edit(rights: &Rights, row: &StoredRow) -> Result<(), Fault> {
        match group_of(row) {
            Some(group) => rights.check_edit(group),
            None => Ok(()),
        }
    }

    fn check_new(rights: &Rights, row: &NewRow) -> Result<(), Fault> {
        rights.check_add(row)
    }

    async fn add(
        database: &Database,
        rights: &Rights,
        new: &NewRow,
    ) -> Result<(Option<i64>, Option<RowWarning>), Fault> {
        let added = match rights.bound() {
            Some(bound) => database.add_row_within(new, &bound).await,
            None => database.add_row(new).await,
        };
        added.map_err(|error| not_added(&error))
    }

    async fn find(database: &Database, id: i64) -> Result<Vec<StoredRow>, Fault> {
        let rows = database.rows_with_id(id).await;
        rows.map_err(|error| fault(&error))
    }

    async fn replace(
        database: &Database,
        id: i64,
        read: &StoredRow,
        new: &NewRow,
    ) -> Result<(bool, Option<RowWarning>), Fault> {
        let replaced = database.replace_row(id, read, new).await;
        replaced.map_err(|error| not_added(&error))
    }

    async fn remove(database: &Database, id: i64, read: &StoredRow) -> Result<bool, Fault> {
        let removed = database.remove_row(id, read).await;
        removed.map_err(|error| fault(&error))
    }
}

fn group_of(row: &StoredRow) -> Option<i64> {
    row.group.as_deref()?.trim().parse().ok()
}
