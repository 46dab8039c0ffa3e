//! `trusted.remove`, over HTTP, and a row to be added.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_address::{NewTrusted, RowWarning};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TRUSTED;
use crate::Control;
use crate::caller::Caller;
use crate::commands::address::{RowsRemoved, fault, with_database};
use crate::commands::{Dispatch, Procedure};
use crate::operation::{Answer, Api, Given, Operation, Routes, answer};

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
    /// Id; null if the table gives none.
    pub id: Option<i64>,
    /// Source.
    pub source: String,
    /// Transport.
    pub proto: String,
    /// Pattern for the From URI.
    pub from_pattern: Option<String>,
    /// Pattern for the request URI.
    pub ruri_pattern: Option<String>,
    /// Tag.
    pub tag: Option<String>,
    /// Priority.
    pub priority: i64,
    /// Why the row may not mean what was intended; null if there is no doubt.
    pub warning: Option<String>,
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
    pub(super) fn of(id: Option<i64>, row: NewTrusted, warning: Option<RowWarning>) -> Self {
        Self {
            id,
            source: row.source,
            proto: row.proto,
            from_pattern: row.from,
            ruri_pattern: row.ruri,
            tag: row.tag,
            priority: row.priority,
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

async fn remove(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(RemoveQuery { source, author }): Given<RemoveQuery>,
) -> Answer {
    let caller = caller.called(author);
    answer(Remove { source }.dispatch(&control, &caller).await)
}
