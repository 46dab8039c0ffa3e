//! `trusted.add`, `trusted.show`, `trusted.replace` and `trusted.delete`, over HTTP: one row of the table of trusted peers.

use portcullis_address::{Database, NewTrusted, RowWarning, StoredTrusted};
use portcullis_rpc::Fault;

use super::TRUSTED;
use super::change::{PeerToAdd, TrustedAdded};
use super::list::StoredPeer;
use crate::Control;
use crate::commands::address::{
    AddRow, DeleteRow, ReplaceRow, Rights, ShowRow, Table, fault, not_added,
};

/// `trusted.add`.
pub(crate) type Add = AddRow<Peers>;

/// `trusted.show`.
pub(crate) type Show = ShowRow<Peers>;

/// `trusted.replace`.
pub(crate) type Replace = ReplaceRow<Peers>;

/// `trusted.delete`.
pub(crate) type Delete = DeleteRow<Peers>;

/// The table of trusted peers, which is the operator's.
#[derive(Debug)]
pub(crate) struct Peers;

impl Table for Peers {
    type Rows = Database;
    type Stored = StoredTrusted;
    type New = NewTrusted;
    type Sent = PeerToAdd;
    type Shown = StoredPeer;
    type Added = TrustedAdded;

    const PATH: &'static str = TRUSTED;
    const ROW: &'static str = "/v1/trusted/{row}";
    const IS_OPEN: bool = false;
    const OPERATIONS: [[&'static str; 2]; 4] = [
        [
            "addTrusted",
            "Add a row to the table of trusted peers; a source can have one row",
        ],
        [
            "showTrusted",
            "Show a row of the table of trusted peers as it is stored",
        ],
        [
            "replaceTrusted",
            "Replace a row of the table of trusted peers; a source can have one row",
        ],
        [
            "deleteTrusted",
            "Remove a row of the table of trusted peers",
        ],
    ];
    const NOT_ADDED: &'static [u16] = &[408, 409, 413, 415, 422, 503];
    const REFUSED: &'static [u16] = &[404, 409, 415, 503];

    fn rows(control: &Control) -> Database {
        control.shared.addresses.database().clone()
    }

    fn read(sent: PeerToAdd) -> Result<NewTrusted, Fault> {
        Ok(sent.into_row())
    }

    fn subject(new: &NewTrusted) -> String {
        new.source.clone()
    }

    fn added(id: Option<i64>, new: NewTrusted, warning: Option<RowWarning>) -> TrustedAdded {
        TrustedAdded::of(id, new, warning)
    }

    fn sees(_: &Rights, _: &StoredTrusted) -> bool {
        true
    }

    fn check_edit(_: &Rights, _: &StoredTrusted) -> Result<(), Fault> {
        Ok(())
    }

    fn check_new(_: &Rights, _: &NewTrusted) -> Result<(), Fault> {
        Ok(())
    }

    async fn add(
        database: &Database,
        _: &Rights,
        new: &NewTrusted,
    ) -> Result<(Option<i64>, Option<RowWarning>), Fault> {
        let added = database.add_trusted_row(new).await;
        added.map_err(|error| not_added(&error))
    }

    async fn find(database: &Database, id: i64) -> Result<Vec<StoredTrusted>, Fault> {
        let rows = database.trusted_with_id(id).await;
        rows.map_err(|error| fault(&error))
    }

    async fn replace(
        database: &Database,
        id: i64,
        read: &StoredTrusted,
        new: &NewTrusted,
    ) -> Result<(bool, Option<RowWarning>), Fault> {
        let replaced = database.replace_trusted_row(id, read, new).await;
        replaced.map_err(|error| not_added(&error))
    }

    async fn remove(database: &Database, id: i64, read: &StoredTrusted) -> Result<bool, Fault> {
        let removed = database.remove_trusted_row(id, read).await;
        removed.map_err(|error| fault(&error))
    }
}
