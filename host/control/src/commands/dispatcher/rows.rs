//! `dispatcher.rows` and `dispatcher.removeRows`, over HTTP: the rows of the table, as they are stored.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_address::RowWarning;
use portcullis_config::TokenRole;
use portcullis_dispatcher::{DispatcherError, NewDestination, Source, StoredDestination};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;
use crate::caller::Caller;
use crate::commands::address::{RowsRemoved, with_rows};
use crate::commands::{Cell, Dispatch, Procedure, SETS_IN_FILE, of_database};
use crate::operation::{Answer, Api, Given, Operation, Routes, answer};

/// The path of the table.
pub(super) const ROWS: &str = "/v1/dispatcher/rows";

/// `dispatcher.rows`.
#[derive(Debug)]
pub(crate) struct ListRows;

/// `dispatcher.removeRows`.
#[derive(Debug)]
pub(crate) struct RemoveRows {
    set: i64,
    uri: String,
}

/// A row of the dispatcher as it is stored. A column that is NULL is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoredGateway {
    /// Id.
    pub id: Option<Cell>,
    /// Number of the set.
    pub set: Option<Cell>,
    /// SIP URI.
    pub uri: Option<String>,
    /// Flags.
    pub flags: Option<Cell>,
    /// Priority.
    pub priority: Option<Cell>,
    /// Attributes.
    pub attrs: Option<String>,
    /// Description.
    pub description: Option<String>,
}

/// A destination to be added to the table of the dispatcher.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewayToAdd {
    /// Number of the set.
    set: u32,
    /// SIP URI: `sip:HOST` or `sips:HOST`, with `:PORT` and `;transport=…` if need be.
    uri: String,
    /// The sum of 1 (inactive), 2 (trying), 4 (disabled), 8 (probing) and 32 (no pings).
    #[serde(default)]
    flags: u32,
    /// Destinations with a higher priority come first.
    #[serde(default)]
    priority: i32,
    /// `name=value` pairs, separated by semicolons.
    #[serde(default)]
    attrs: String,
    /// A text for people.
    #[serde(default)]
    description: String,
}

/// The rows to remove.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    /// The number of the set
    set: u32,
    /// The URI, as written in the row
    uri: String,
    /// Author of the change
    author: Option<String>,
}

/// A row of the dispatcher that was added or replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayAdded {
    /// Id; null if the table gives none.
    pub id: Option<i64>,
    /// Number of the set.
    pub set: i64,
    /// SIP URI.
    pub uri: String,
    /// Flags.
    pub flags: i64,
    /// Priority.
    pub priority: i64,
    /// Attributes.
    pub attrs: String,
    /// Description.
    pub description: String,
    /// Why the row may not mean what was intended; null if there is no doubt.
    pub warning: Option<String>,
}

impl Procedure for ListRows {
    type Reply = Vec<StoredGateway>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Vec<StoredGateway>, Fault> {
        let rows = with_source(control, |source| async move { source.rows().await });
        Ok(rows.await?.into_iter().map(StoredGateway::from).collect())
    }
}

impl Procedure for RemoveRows {
    type Reply = RowsRemoved;

    fn subject(&self) -> Option<String> {
        Some(format!("set {} {}", self.set, self.uri))
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<RowsRemoved, Fault> {
        let Self { set, uri } = self;
        let of_row = uri.clone();
        let removed = with_source(control, move |source| async move {
            source.remove(set, &of_row).await
        });
        match removed.await? {
            0 => {
                let text = format!("no row has set {set} and {uri}: GET {ROWS} lists the rows");
                Err(Fault::new(404, text))
            }
            removed => Ok(RowsRemoved { removed }),
        }
    }
}

/// What the audit says that a row is.
pub(super) fn subject(row: &NewDestination) -> String {
    format!("set {} {}", row.setid, row.destination)
}

/// Does work on the rows: see [`with_rows`].
async fn with_source<T, F>(
    control: &Control,
    work: impl FnOnce(Source) -> F + Send + 'static,
) -> Result<T, Fault>
where
    T: Send + 'static,
    F: Future<Output = Result<T, DispatcherError>>,
{
    let source = control.shared.dispatcher.source().clone();
    let work = move |source| async move { work(source).await.map_err(|error| fault(&error)) };
    with_rows(source, work).await
}

pub(super) fn fault(error: &DispatcherError) -> Fault {
    match error {
        DispatcherError::IsFile { .. } => Fault::new(409, error.to_string()).because(SETS_IN_FILE),
        DispatcherError::Row(error) => Fault::new(422, error.to_string()),
        DispatcherError::Database(_)
        | DispatcherError::File { .. }
        | DispatcherError::NoUsableLine { .. }
        | DispatcherError::Ended(_) => of_database(503, error),
    }
}

impl GatewayAdded {
    pub(super) fn of(id: Option<i64>, row: NewDestination, warning: Option<RowWarning>) -> Self {
        Self {
            id,
            set: row.setid,
            uri: row.destination,
            flags: row.flags,
            priority: row.priority,
            attrs: row.attrs,
            description: row.description,
            warning: warning.map(|warning| warning.to_string()),
        }
    }
}

impl From<StoredDestination> for StoredGateway {
    fn from(row: StoredDestination) -> Self {
        Self {
            id: row.id.map(Cell::from),
            set: row.setid.map(Cell::from),
            uri: row.destination,
            flags: row.flags.map(Cell::from),
            priority: row.priority.map(Cell::from),
            attrs: row.attrs,
            description: row.description,
        }
    }
}

impl GatewayToAdd {
    pub(super) fn into_row(self) -> NewDestination {
        NewDestination {
            setid: self.set.into(),
            destination: self.uri,
            flags: self.flags.into(),
            priority: self.priority.into(),
            attrs: self.attrs,
            description: self.description,
        }
    }
}

impl ListRows {
    /// `GET /v1/dispatcher/rows`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<Vec<StoredGateway>>(
            Method::GET,
            ROWS,
            "listDispatcherRows",
            "List the rows of the table of the dispatcher as they are stored",
        );
        routes.on(get.answers(200, "The rows").refuses(&[409, 503]), list)
    }
}

impl RemoveRows {
    /// `DELETE /v1/dispatcher/rows`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let delete = Operation::new::<RowsRemoved>(
            Method::DELETE,
            ROWS,
            "removeDispatcherRows",
            "Remove all rows of a set and a URI from the table of the dispatcher",
        );
        let delete = delete.query::<RemoveQuery>(&["set", "uri"]);
        let delete = delete.answers(200, "The rows were removed");
        routes.on(delete.refuses(&[404, 409, 415, 503]), remove)
    }
}

async fn list(State(control): Api, Extension(caller): Extension<Caller>) -> Answer {
    answer(ListRows.dispatch(&control, &caller).await)
}

async fn remove(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(RemoveQuery { set, uri, author }): Given<RemoveQuery>,
) -> Answer {
    let caller = caller.called(author);
    let set = set.into();
    answer(RemoveRows { set, uri }.dispatch(&control, &caller).await)
}
