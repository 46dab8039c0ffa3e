//! `trusted.add` and `trusted.remove`, over HTTP.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use portcullis_address::{NewTrusted, RowWarning};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TRUSTED;
use crate::Control;
use crate::caller::Caller;
use crate::commands::address::{AuthorQuery, RowsRemoved, fault, not_added, with_database};
use crate::commands::{Dispatch, Procedure};
use crate::operation::{Answer, Api, Given, Operation, Routes, answer, json_body, schema_of};

/// `trusted.add`.
#[derive(Debug)]
pub(crate) struct Add(NewTrusted);

/// `trusted.remove`.
#[derive(Debug)]
pub(crate) struct Remove {
    source: String,
}

/// A peer to be added.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PeerToAdd {
    /// Source address of requests; any other text is compared literally.
    source: String,
    /// Transport: any, udp, tcp, tls, sctp, ws, wss, or none to disable the row.
    proto: String,
    /// A POSIX regular expression for the From URI; without it, any URI.
    from_pattern: Option<String>,
    /// A POSIX regular expression for the request URI; without it, any URI.
    ruri_pattern: Option<String>,
    /// A text that policies can read.
    tag: Option<String>,
    /// Rows with a higher priority are tried first.
    #[serde(default)]
    priority: i64,
}

/// The peers to remove.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    /// The source, as written in the row
    source: String,
    /// Author of the change
    author: Option<String>,
}

/// A peer that was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrustedAdded {
    /// Source.
    pub source: String,
    /// Why the row may not mean what was intended; null if there is no doubt.
    pub warning: Option<String>,
}

impl Procedure for Add {
    type Reply = TrustedAdded;

    fn subject(&self) -> Option<String> {
        Some(self.0.source.clone())
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<TrustedAdded, Fault> {
        let Self(row) = self;
        let (row, warning) = with_database(control, move |database| async move {
            let added = database.add_trusted(&row).await;
            let warning = added.map_err(|error| not_added(&error))?;
            Ok((row, warning))
        })
        .await?;
        Ok(TrustedAdded::of(row, warning))
    }
}

impl Procedure for Remove {
    type Reply = RowsRemoved;

    fn subject(&self) -> Option<String> {
        Some(self.source.clone())
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<RowsRemoved, Fault> {
        let Self { source } = self;
        let source_of_row = source.clone();
        let removed = with_database(control, move |database| async move {
            let removed = database.remove_trusted(&source_of_row).await;
            removed.map_err(|error| fault(&error))
        });
        match removed.await? {
            0 => {
                let text = format!("no row has source {source}: GET {TRUSTED} lists the rows");
                Err(Fault::new(404, text))
            }
            removed => Ok(RowsRemoved { removed }),
        }
    }
}

impl Add {
    /// `POST /v1/trusted`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<TrustedAdded>(
            Method::POST,
            TRUSTED,
            "addTrusted",
            "Add a row to the table of trusted peers; a source can have one row",
        );
        let post = post.query::<AuthorQuery>(&[]).answers(
            201,
            "The row was added; the hosts of the database use it within about a second",
        );
        let post = post.body("application/json", schema_of::<PeerToAdd>(), "The row");
        routes.on(post.refuses(&[408, 409, 413, 415, 422, 503]), add)
    }
}

impl Remove {
    /// `DELETE /v1/trusted`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let delete = Operation::new::<RowsRemoved>(
            Method::DELETE,
            TRUSTED,
            "removeTrusted",
            "Remove all rows of a source from the table of trusted peers",
        );
        let delete = delete.query::<RemoveQuery>(&["source"]);
        let delete = delete.answers(200, "The rows were removed");
        routes.on(delete.refuses(&[404, 415, 503]), remove)
    }
}

impl TrustedAdded {
    pub(super) fn of(row: NewTrusted, warning: Option<RowWarning>) -> Self {
        Self {
            source: row.source,
            warning: warning.map(|warning| warning.to_string()),
        }
    }
}

impl PeerToAdd {
    /// An empty text is NULL.
    pub(super) fn into_row(self) -> NewTrusted {
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        NewTrusted {
            source: self.source,
            proto: self.proto,
            from: text(self.from_pattern),
            ruri: text(self.ruri_pattern),
            tag: text(self.tag),
            priority: self.priority,
        }
    }
}

async fn add(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(query): Given<AuthorQuery>,
    body: Body,
) -> Answer {
    let peer: PeerToAdd = json_body(body).await?;
    let caller = caller.called(query.author);
    let added = answer(Add(peer.into_row()).dispatch(&control, &caller).await)?;
    Ok((StatusCode::CREATED, added).into_response())
}

async fn remove(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(RemoveQuery { source, author }): Given<RemoveQuery>,
) -> Answer {
    let caller = caller.called(author);
    answer(Remove { source }.dispatch(&control, &caller).await)
}
