//! `dispatcher.addRow`, `dispatcher.showRow`, `dispatcher.replaceRow` and `dispatcher.deleteRow`, over HTTP: one row of the table.

use portcullis_address::RowWarning;
use portcullis_dispatcher::{NewDestination, Source, StoredDestination};
use portcullis_rpc::Fault;

use super::rows::{GatewayAdded, GatewayToAdd, ROWS, StoredGateway, fault, subject};
use crate::Control;
use crate::commands::address::{self, Rights, Table};

/// `dispatcher.addRow`.
pub(crate) type AddRow = address::AddRow<Gateways>;

/// `dispatcher.showRow`.
pub(crate) type ShowRow = address::ShowRow<Gateways>;

/// `dispatcher.replaceRow`.
pub(crate) type ReplaceRow = address::ReplaceRow<Gateways>;

/// `dispatcher.deleteRow`.
pub(crate) type DeleteRow = address::DeleteRow<Gateways>;

/// The table of the dispatcher, which is the operator's.
#[derive(Debug)]
pub(crate) struct Gateways;

impl Table for Gateways {
    type Rows = Source;
    type Stored = StoredDestination;
    type New = NewDestination;
    type Sent = GatewayToAdd;
    type Shown = StoredGateway;
    type Added = GatewayAdded;

    const PATH: &'static str = ROWS;
    const ROW: &'static str = "/v1/dispatcher/rows/{row}";
    const IS_OPEN: bool = false;
    const OPERATIONS: [[&'static str; 2]; 4] = [
        [
            "addDispatcherRow",
            "Add a row to the table of the dispatcher",
        ],
        [
            "showDispatcherRow",
            "Show a row of the table of the dispatcher as it is stored",
        ],
        [
            "replaceDispatcherRow",
            "Replace a row of the table of the dispatcher",
        ],
        [
            "deleteDispatcherRow",
            "Remove a row of the table of the dispatcher",
        ],
    ];
    const NOT_ADDED: &'static [u16] = &[408, 409, 413, 415, 422, 503];
    const REFUSED: &'static [u16] = &[404, 409, 415, 503];

    fn rows(control: &Control) -> Source {
        control.shared.dispatcher.source().clone()
    }

    fn read(sent: GatewayToAdd) -> Result<NewDestination, Fault> {
        Ok(sent.into_row())
    }

    fn subject(new: &NewDestination) -> String {
        subject(new)
    }

    fn added(id: Option<i64>, new: NewDestination, warning: Option<RowWarning>) -> GatewayAdded {
        GatewayAdded::of(id, new, warning)
    }

    fn sees(_: &Rights, _: &StoredDestination) -> bool {
        true
    }

    fn check_edit(_: &Rights, _: &StoredDestination) -> Result<(), Fault> {
        Ok(())
    }

    fn check_new(_: &Rights, _: &NewDestination) -> Result<(), Fault> {
        Ok(())
    }

    async fn add(
        source: &Source,
        _: &Rights,
        new: &NewDestination,
    ) -> Result<(Option<i64>, Option<RowWarning>), Fault> {
        source.add_row(new).await.map_err(|error| fault(&error))
    }

    async fn find(source: &Source, id: i64) -> Result<Vec<StoredDestination>, Fault> {
        source.with_id(id).await.map_err(|error| fault(&error))
    }

    async fn replace(
        source: &Source,
        id: i64,
        read: &StoredDestination,
        new: &NewDestination,
    ) -> Result<(bool, Option<RowWarning>), Fault> {
        let replaced = source.replace_row(id, read, new).await;
        replaced.map_err(|error| fault(&error))
    }

    async fn remove(source: &Source, id: i64, read: &StoredDestination) -> Result<bool, Fault> {
        let removed = source.remove_row(id, read).await;
        removed.map_err(|error| fault(&error))
    }
}
