//! `trusted.show`, `trusted.replace` and `trusted.delete`, over HTTP: one row of the table of trusted peers, by its id.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_address::{NewTrusted, StoredTrusted};
use portcullis_config::TokenRole;
use portcullis_rpc::Fault;

use super::change::{AuthorQuery, PeerToAdd};
use super::{StoredPeer, TRUSTED, TrustedAdded};
use crate::Control;
use crate::caller::Caller;
use crate::commands::address::{RowsRemoved, fault, not_added, read_database, with_database};
use crate::commands::{Dispatch, IntoReply, Procedure, not_unique, row_changed, unknown_row};
use crate::conditions::RowCondition;
use crate::operation::{
    Answer, Api, Given, Operation, Routes, Segments, answer, json_body, schema_of,
};

/// The path of a row.
const PEER: &str = "/v1/trusted/{row}";

/// `trusted.show`.
#[derive(Debug)]
pub(crate) struct Show {
    id: i64,
}

/// `trusted.replace`.
#[derive(Debug)]
pub(crate) struct Replace {
    id: i64,
    row: NewTrusted,
    condition: RowCondition,
}

/// `trusted.delete`.
#[derive(Debug)]
pub(crate) struct Delete {
    id: i64,
    condition: RowCondition,
}

impl Procedure for Show {
    type Reply = StoredPeer;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<StoredPeer, Fault> {
        Ok(stored(control, self.id).await?.into())
    }
}

impl Procedure for Replace {
    type Reply = TrustedAdded;

    fn subject(&self) -> Option<String> {
        Some(format!("{}: {}", self.id, self.row.source))
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<TrustedAdded, Fault> {
        let Self { id, row, condition } = self;
        let read = stored(control, id).await;
        let read = condition.check(read, |row| StoredPeer::from(row.clone()).into_reply())?;
        let replaced = with_database(control, move |database| async move {
            let replaced = database.replace_trusted_row(id, &read, &row).await;
            let (is_done, warning) = replaced.map_err(|error| not_added(&error))?;
            Ok(is_done.then_some((row, warning)))
        });
        let (row, warning) = replaced.await?.ok_or_else(row_changed)?;
        Ok(TrustedAdded {
            source: row.source,
            warning: warning.map(|warning| warning.to_string()),
        })
    }
}

impl Procedure for Delete {
    type Reply = RowsRemoved;

    fn subject(&self) -> Option<String> {
        Some(format!("row {}", self.id))
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<RowsRemoved, Fault> {
        let Self { id, condition } = self;
        let read = stored(control, id).await;
        let read = condition.check(read, |row| StoredPeer::from(row.clone()).into_reply())?;
        let removed = with_database(control, move |database| async move {
            let removed = database.remove_trusted_row(id, &read).await;
            removed.map_err(|error| fault(&error))
        });
        match removed.await? {
            true => Ok(RowsRemoved { removed: 1 }),
            false => Err(row_changed()),
        }
    }
}

/// The row with this id.
async fn stored(control: &Control, id: i64) -> Result<StoredTrusted, Fault> {
    let rows = read_database(control, move |database| async move {
        let rows = database.trusted_with_id(id).await;
        rows.map_err(|error| fault(&error))
    });
    let mut rows = rows.await?;
    match rows.len() {
        0 | 1 => rows.pop().ok_or_else(|| unknown_row(id, TRUSTED)),
        _ => Err(not_unique(id)),
    }
}

impl Show {
    /// `GET /v1/trusted/{row}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<StoredPeer>(
            Method::GET,
            PEER,
            "showTrusted",
            "Show a row of the table of trusted peers as it is stored",
        );
        routes.on(get.answers(200, "The row").refuses(&[404, 409, 503]), show)
    }
}

impl Replace {
    /// `PUT /v1/trusted/{row}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let put = Operation::new::<TrustedAdded>(
            Method::PUT,
            PEER,
            "replaceTrusted",
            "Replace a row of the table of trusted peers; a source can have one row",
        );
        let put = put.query::<AuthorQuery>(&[]).answers(
            200,
            "The row was replaced; the hosts of the database use it within about a second",
        );
        let put = put.body("application/json", schema_of::<PeerToAdd>(), "The row");
        routes.on(put.refuses(&[404, 408, 409, 413, 415, 422, 503]), replace)
    }
}

impl Delete {
    /// `DELETE /v1/trusted/{row}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let delete = Operation::new::<RowsRemoved>(
            Method::DELETE,
            PEER,
            "deleteTrusted",
            "Remove a row of the table of trusted peers",
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
    let peer: PeerToAdd = json_body(body).await?;
    let row = peer.into_row();
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
