//! `address.add` and `address.remove`, over HTTP.

use std::slice;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use portcullis_address::{AddError, Database, NewRow, RowBound, RowWarning, network};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rights::Rights;
use super::{ADDRESSES, CHANGES, fault, not_added, with_database};
use crate::Control;
use crate::caller::Caller;
use crate::commands::{Dispatch, Procedure};
use crate::operation::{Answer, Api, Given, Operation, Routes, answer, json_body, schema_of};

/// `address.add`.
#[derive(Debug)]
pub(crate) struct Add(NewRow);

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

impl Procedure for Add {
    type Reply = AddressAdded;

    const IS_OPEN: bool = true;

    fn subject(&self) -> Option<String> {
        Some(format!(
            "{} {}/{}",
            self.0.group, self.0.ip_addr, self.0.mask
        ))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<AddressAdded, Fault> {
        let Self(row) = self;
        let rights = Rights::of(control, caller)?;
        rights.check_add(&row)?;
        let bound = rights.bound();
        let (row, warning) = with_database(control, move |database| async move {
            let added = match bound {
                Some(bound) => add_within(&database, &row, &bound).await,
                None => database.add(&row).await,
            };
            let warning = added.map_err(|error| not_added(&error))?;
            Ok((row, warning))
        })
        .await?;
        Ok(AddressAdded::of(row, warning))
    }
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

impl Add {
    /// `POST /v1/addresses`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<AddressAdded>(
            Method::POST,
            ADDRESSES,
            "addAddress",
            "Add a row to the address table; a tenant may do so for its `edit-groups`",
        );
        let post = post.query::<AuthorQuery>(&[]).answers(
            201,
            "The row was added; the hosts of the database use it within about a second",
        );
        let post = post.body("application/json", schema_of::<RowToAdd>(), "The row");
        routes.on(post.refuses(CHANGES), add)
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
    pub(super) fn of(row: NewRow, warning: Option<RowWarning>) -> Self {
        Self {
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

async fn add_within(
    database: &Database,
    row: &NewRow,
    bound: &RowBound,
) -> Result<Option<RowWarning>, AddError> {
    let warning = row.check()?;
    database.add_within(slice::from_ref(row), bound).await?;
    Ok(warning)
}

async fn add(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(query): Given<AuthorQuery>,
    body: Body,
) -> Answer {
    let row: RowToAdd = json_body(body).await?;
    let row = row.into_row()?;
    let caller = caller.called(query.author);
    let added = answer(Add(row).dispatch(&control, &caller).await)?;
    Ok((StatusCode::CREATED, added).into_response())
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
