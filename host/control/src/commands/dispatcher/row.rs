//! `dispatcher.showRow`, `dispatcher.replaceRow` and `dispatcher.deleteRow`, over HTTP: one row of the table, by its id.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_dispatcher::{NewDestination, StoredDestination};
use portcullis_rpc::Fault;

use super::rows::{
    AuthorQuery, GatewayAdded, GatewayToAdd, ROWS, StoredGateway, subject, with_source,
};
use crate::Control;
use crate::caller::Caller;
use crate::commands::address::RowsRemoved;
use crate::commands::{Dispatch, IntoReply, Procedure, not_unique, row_changed, unknown_row};
use crate::conditions::RowCondition;
use crate::operation::{
    Answer, Api, Given, Operation, Routes, Segments, answer, json_body, schema_of,
};

/// The path of a row.
const ROW: &str = "/v1/dispatcher/rows/{row}";

/// `dispatcher.showRow`.
#[derive(Debug)]
pub(crate) struct ShowRow {
    id: i64,
}

/// `dispatcher.replaceRow`.
#[derive(Debug)]
pub(crate) struct ReplaceRow {
    id: i64,
    row: NewDestination,
    condition: RowCondition,
}

/// `dispatcher.deleteRow`.
#[derive(Debug)]
pub(crate) struct DeleteRow {
    id: i64,
    condition: RowCondition,
}

impl Procedure for ShowRow {
    type Reply = StoredGateway;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<StoredGateway, Fault> {
        Ok(stored(control, self.id).await?.into())
    }
}

impl Procedure for ReplaceRow {
    type Reply = GatewayAdded;

    fn subject(&self) -> Option<String> {
        Some(format!("{}: {}", self.id, subject(&self.row)))
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<GatewayAdded, Fault> {
        let Self { id, row, condition } = self;
        let read = stored(control, id).await;
        let read = condition.check(read, |row| StoredGateway::from(row.clone()).into_reply())?;
        let replaced = with_source(control, move |source| async move {
            let (is_done, warning) = source.replace_row(id, &read, &row).await?;
            Ok(is_done.then_some((row, warning)))
        });
        let (row, warning) = replaced.await?.ok_or_else(row_changed)?;
        Ok(GatewayAdded::of(row, warning))
    }
}

impl Procedure for DeleteRow {
    type Reply = RowsRemoved;

    fn subject(&self) -> Option<String> {
        Some(format!("row {}", self.id))
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<RowsRemoved, Fault> {
        let Self { id, condition } = self;
        let read = stored(control, id).await;
        let read = condition.check(read, |row| StoredGateway::from(row.clone()).into_reply())?;
        let removed = with_source(control, move |source| async move {
            source.remove_row(id, &read).await
        });
        match removed.await? {
            true => Ok(RowsRemoved { removed: 1 }),
            false => Err(row_changed()),
        }
    }
}

/// The row with this id.
async fn stored(control: &Control, id: i64) -> Result<StoredDestination, Fault> {
    let rows = with_source(
        control,
        move |source| async move { source.with_id(id).await },
    );
    let mut rows = rows.await?;
    match rows.len() {
        0 | 1 => rows.pop().ok_or_else(|| unknown_row(id, ROWS)),
        _ => Err(not_unique(id)),
    }
}

impl ShowRow {
    /// `GET /v1/dispatcher/rows/{row}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<StoredGateway>(
            Method::GET,
            ROW,
            "showDispatcherRow",
            "Show a row of the table of the dispatcher as it is stored",
        );
        routes.on(get.answers(200, "The row").refuses(&[404, 409, 503]), show)
    }
}

impl ReplaceRow {
    /// `PUT /v1/dispatcher/rows/{row}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let put = Operation::new::<GatewayAdded>(
            Method::PUT,
            ROW,
            "replaceDispatcherRow",
            "Replace a row of the table of the dispatcher",
        );
        let put = put.query::<AuthorQuery>(&[]).answers(
            200,
            "The row was replaced; the hosts of the database use it within about a second",
        );
        let put = put.body("application/json", schema_of::<GatewayToAdd>(), "The row");
        routes.on(put.refuses(&[404, 408, 409, 413, 415, 422, 503]), replace)
    }
}

impl DeleteRow {
    /// `DELETE /v1/dispatcher/rows/{row}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let delete = Operation::new::<RowsRemoved>(
            Method::DELETE,
            ROW,
            "deleteDispatcherRow",
            "Remove a row of the table of the dispatcher",
        );
        let delete = delete.query::<AuthorQuery>(&[]);
        let delete = delete.answers(200, "The row was removed");
        routes.on(delete.refuses(&[404, 409, 415, 503]), delete_row)
    }
}

async fn show(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(id): Segments<i64>,
) -> Answer {
    answer(ShowRow { id }.dispatch(&control, &caller).await)
}

async fn replace(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    condition: RowCondition,
    Segments(id): Segments<i64>,
    Given(query): Given<AuthorQuery>,
    body: Body,
) -> Answer {
    let row: GatewayToAdd = json_body(body).await?;
    let row = row.into_row();
    let command = ReplaceRow { id, row, condition };
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
    answer(
        DeleteRow { id, condition }
            .dispatch(&control, &caller)
            .await,
    )
}
