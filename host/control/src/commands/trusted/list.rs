//! `trusted.list`, over HTTP: the rows of the table of trusted peers, as they are stored.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_address::StoredTrusted;
use portcullis_config::TokenRole;
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TRUSTED;
use crate::Control;
use crate::caller::Caller;
use crate::commands::address::{fault, with_database};
use crate::commands::{Cell, Dispatch, Procedure};
use crate::operation::{Answer, Api, Operation, Routes, answer};

/// `trusted.list`.
#[derive(Debug)]
pub(crate) struct ListTrusted;

/// A trusted peer as it is stored. A column that is NULL is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoredPeer {
    /// Id.
    pub id: Option<Cell>,
    /// Source of requests.
    pub source: Option<String>,
    /// Transport.
    pub proto: Option<String>,
    /// Pattern for the From URI.
    pub from_pattern: Option<String>,
    /// Pattern for the request URI.
    pub ruri_pattern: Option<String>,
    /// Tag.
    pub tag: Option<String>,
    /// Priority.
    pub priority: Option<Cell>,
}

impl Procedure for ListTrusted {
    type Reply = Vec<StoredPeer>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Vec<StoredPeer>, Fault> {
        let rows = with_database(control, move |database| async move {
            let rows = database.trusted_rows().await;
            rows.map_err(|error| fault(&error))
        });
        let rows = rows.await?;
        Ok(rows.into_iter().map(StoredPeer::from).collect())
    }
}

impl From<StoredTrusted> for StoredPeer {
    fn from(row: StoredTrusted) -> Self {
        Self {
            id: row.id.map(Cell::from),
            source: row.source,
            proto: row.proto,
            from_pattern: row.from,
            ruri_pattern: row.ruri,
            tag: row.tag,
            priority: row.priority.map(Cell::from),
        }
    }
}

impl ListTrusted {
    /// `GET /v1/trusted`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<Vec<StoredPeer>>(
            Method::GET,
            TRUSTED,
            "listTrusted",
            "List the rows of the table of trusted peers as they are stored",
        );
        routes.on(get.answers(200, "The rows").refuses(&[503]), list)
    }
}

async fn list(State(control): Api, Extension(caller): Extension<Caller>) -> Answer {
    answer(ListTrusted.dispatch(&control, &caller).await)
}
