//! `address.remove`, over HTTP, and a row to be added.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_address::{NewRow, RowWarning, network};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rights::Rights;
use super::{ADDRESSES, CHANGES, fault, with_database};
use crate::Control;
use crate::caller::Caller;
use crate::commands::{Dispatch, Procedure};
use crate::operation::{Answer, Api, Given, Operation, Routes, answer};

/// `address.remove`.
#[derive(Debug)]
pub(crate) struct Remove {
    group: i64,
    address: String,
}

/// A row to be added.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowToAdd {
    /// Group, from 1.
    group: i64,
    /// An IPv4 or IPv6 address, a network as ADDRESS/BITS or by its first address, or a name.
    address: String,
    /// Bits of the network; without it, the network's bits or one host.
    mask: Option<i64>,
    /// Source port; 0 for any.
    #[serde(default)]
    port: i64,
    /// A text that policies can read.
    tag: Option<String>,
}

/// The author of a change.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AuthorQuery {
    /// Author of the change
    pub(crate) author: Option<String>,
}

/// The rows to remove.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    /// Group
    group: i64,
    /// The address, as written in the row, or a network as ADDRESS/BITS
    address: String,
    /// Author of the change
    author: Option<String>,
}

/// A row that was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressAdded {
    /// Id; null if the table gives none.
    pub id: Option<i64>,
    /// Group.
    pub group: i64,
    /// Address, network or name.
    pub address: String,
    /// Bits of the network.
    pub mask: i64,
    /// Port; 0 for any.
    pub port: i64,
    /// Tag.
    pub tag: Option<String>,
    /// Why the row may not mean what was intended; null if there is no doubt.
    pub warning: Option<String>,
}

/// Rows that were removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RowsRemoved {
    /// Their number.
    pub removed: u64,
}

impl Procedure for Remove {
    type Reply = RowsRemoved;

    const IS_OPEN: bool = true;

    fn subject(&self) -> Option<String> {
        Some(format!("{} {}", self.group, self.address))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<RowsRemoved, Fault> {
        let Self { group, address } = self;
        Rights::of(control, caller)?.check_edit(group)?;
        let address_of_row = address.clone();
        let removed = with_database(control, move |database| async move {
            let removed = match network(&address_of_row) {
                Some((addr, bits)) => database.remove_network(group, &addr, bits).await,
                None => database.remove(group, &address_of_row).await,
            };
            removed.map_err(|error| fault(&error))
        });
        match removed.await? {
            0 => {
                let text = format!(
                    "no row has group {group} and address {address}: GET {ADDRESSES} lists the rows"
                );
                Err(Fault::new(404, text))
            }
            removed => Ok(RowsRemoved { removed }),
        }
    }
}

impl Remove {
    /// `DELETE /v1/addresses`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let delete = Operation::new::<RowsRemoved>(
            Method::DELETE,
            ADDRESSES,
            "removeAddress",
            "Remove all rows of a group and an address, whatever their masks and ports; for ADDRESS/BITS, those with its mask",
        );
        let delete = delete.query::<RemoveQuery>(&["group", "address"]);
        routes.on(
            delete
                .answers(200, "The rows were removed")
                .refuses(CHANGES),
            remove,
        )
    }
}

impl AddressAdded {
    pub(super) fn of(id: Option<i64>, row: NewRow, warning: Option<RowWarning>) -> Self {
        Self {
            id,
            group: row.group,
            address: row.ip_addr,
            mask: row.mask,
            port: row.port,
            tag: row.tag,
            warning: warning.map(|warning| warning.to_string()),
        }
    }
}

impl RowToAdd {
    /// # Errors
    /// 422 if the network and the mask differ.
    pub(super) fn into_row(self) -> Result<NewRow, Fault> {
        let row = NewRow::of_words(self.group, self.address, self.mask, self.port, self.tag);
        row.map_err(|error| Fault::new(422, error.to_string()))
    }
}

async fn remove(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(query): Given<RemoveQuery>,
) -> Answer {
    let RemoveQuery {
        group,
        address,
        author,
    } = query;
    let caller = caller.called(author);
    answer(Remove { group, address }.dispatch(&control, &caller).await)
}
