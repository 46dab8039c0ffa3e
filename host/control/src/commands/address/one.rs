//! `address.show`, `address.replace` and `address.delete`, over HTTP: one row of the table of addresses, by its id.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_address::{NewRow, StoredRow};
use portcullis_config::TokenRole;
use portcullis_rpc::Fault;

use super::change::{AuthorQuery, RowToAdd};
use super::rights::Rights;
use super::{
    ADDRESSES, AddressAdded, AddressRow, CHANGES, RowsRemoved, fault, not_added, read_database,
    with_database,
};
use crate::Control;
use crate::caller::Caller;
use crate::commands::{Dispatch, IntoReply, Procedure, not_unique, row_changed, unknown_row};
use crate::conditions::RowCondition;
use crate::operation::{
    Answer, Api, Given, Operation, Routes, Segments, answer, json_body, schema_of,
};

/// The path of a row.
const ADDRESS: &str = "/v1/addresses/{row}";

/// `address.show`.
#[derive(Debug)]
pub(crate) struct Show {
    id: i64,
}

/// `address.replace`.
#[derive(Debug)]
pub(crate) struct Replace {
    id: i64,
    row: NewRow,
    condition: RowCondition,
}

/// `address.delete`.
#[derive(Debug)]
pub(crate) struct Delete {
    id: i64,
    condition: RowCondition,
}

impl Procedure for Show {
    type Reply = AddressRow;

    const NEEDS: TokenRole = TokenRole::Read;
    const IS_OPEN: bool = true;

    async fn execute(self, control: &Control, caller: &Caller) -> Result<AddressRow, Fault> {
        let rights = Rights::of(control, caller)?;
        Ok(stored(control, &rights, self.id).await?.into())
    }
}

impl Procedure for Replace {
    type Reply = AddressAdded;

    const IS_OPEN: bool = true;

    fn subject(&self) -> Option<String> {
        let Self { id, row, .. } = self;
        Some(format!("{id}: {} {}/{}", row.group, row.ip_addr, row.mask))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<AddressAdded, Fault> {
        let Self { id, row, condition } = self;
        let rights = Rights::of(control, caller)?;
        rights.check_add(&row)?;
        let read = editable(control, &rights, id, &condition).await?;
        let replaced = with_database(control, move |database| async move {
            let replaced = database.replace_row(id, &read, &row).await;
            let (is_done, warning) = replaced.map_err(|error| not_added(&error))?;
            Ok(is_done.then_some((row, warning)))
        });
        let (row, warning) = replaced.await?.ok_or_else(row_changed)?;
        Ok(AddressAdded {
            group: row.group,
            address: row.ip_addr,
            mask: row.mask,
            port: row.port,
            tag: row.tag,
            warning: warning.map(|warning| warning.to_string()),
        })
    }
}

impl Procedure for Delete {
    type Reply = RowsRemoved;

    const IS_OPEN: bool = true;

    fn subject(&self) -> Option<String> {
        Some(format!("row {}", self.id))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<RowsRemoved, Fault> {
        let Self { id, condition } = self;
        let rights = Rights::of(control, caller)?;
        let read = editable(control, &rights, id, &condition).await?;
        let removed = with_database(control, move |database| async move {
            let removed = database.remove_row(id, &read).await;
            removed.map_err(|error| fault(&error))
        });
        match removed.await? {
            true => Ok(RowsRemoved { removed: 1 }),
            false => Err(row_changed()),
        }
    }
}

/// The row with this id, if the caller may see it.
async fn stored(control: &Control, rights: &Rights, id: i64) -> Result<StoredRow, Fault> {
    let rows = read_database(control, move |database| async move {
        let rows = database.rows_with_id(id).await;
        rows.map_err(|error| fault(&error))
    });
    let mut rows = rows.await?;
    if rows.len() > 1 {
        return Err(not_unique(id));
    }
    let seen = rows.pop().filter(|row| match group_of(row) {
        Some(group) => rights.sees(group),
        None => rights.is_operator(),
    });
    seen.ok_or_else(|| unknown_row(id, ADDRESSES))
}

/// The row with this id, if the caller may change it and the condition is met.
async fn editable(
    control: &Control,
    rights: &Rights,
    id: i64,
    condition: &RowCondition,
) -> Result<StoredRow, Fault> {
    let read = stored(control, rights, id).await;
    let read = condition.check(read, |row| AddressRow::from(row.clone()).into_reply())?;
    // A row without a valid group is seen by the operator only, who may change every row.
    if let Some(group) = group_of(&read) {
        rights.check_edit(group)?;
    }
    Ok(read)
}

fn group_of(row: &StoredRow) -> Option<i64> {
    row.group.as_deref()?.trim().parse().ok()
}

impl Show {
    /// `GET /v1/addresses/{row}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<AddressRow>(
            Method::GET,
            ADDRESS,
            "showAddress",
            "Show a row of the address table as it is stored; for a tenant, one of its groups",
        );
        routes.on(get.answers(200, "The row").refuses(&[404, 409, 503]), show)
    }
}

impl Replace {
    /// `PUT /v1/addresses/{row}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let put = Operation::new::<AddressAdded>(
            Method::PUT,
            ADDRESS,
            "replaceAddress",
            "Replace a row of the address table; a tenant may do so for its `edit-groups`",
        );
        let put = put.query::<AuthorQuery>(&[]).answers(
            200,
            "The row was replaced; the hosts of the database use it within about a second",
        );
        let put = put.body("application/json", schema_of::<RowToAdd>(), "The row");
        routes.on(put.refuses(CHANGES), replace)
    }
}

impl Delete {
    /// `DELETE /v1/addresses/{row}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let delete = Operation::new::<RowsRemoved>(
            Method::DELETE,
            ADDRESS,
            "deleteAddress",
            "Remove a row of the address table; a tenant may do so for its `edit-groups`",
        );
        let delete = delete.query::<AuthorQuery>(&[]);
        let delete = delete.answers(200, "The row was removed");
        routes.on(delete.refuses(CHANGES), delete_row)
    }
}

async fn show(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(id): Segments<i64>,
) -> Answer {
    answer(Show { id }.dispatch(&control, &caller).await)
}

async fn replace(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    condition: RowCondition,
    Segments(id): Segments<i64>,
    Given(query): Given<AuthorQuery>,
    body: Body,
) -> Answer {
    let row: RowToAdd = json_body(body).await?;
    let row = row.into_row()?;
    let command = Replace { id, row, condition };
    let caller = caller.called(query.author);
    answer(command.dispatch(&control, &caller).await)
}

async fn delete_row(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    condition: RowCondition,
    Segments(id): Segments<i64>,
    Given(query): Given<AuthorQuery>,
) -> Answer {
    let caller = caller.called(query.author);
    answer(Delete { id, condition }.dispatch(&control, &caller).await)
}
