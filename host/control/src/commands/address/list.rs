//! `address.list`, over HTTP: the rows of the table of addresses, as they are stored.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_address::{Cursor, Database, RowFilter, StoredRow};
use portcullis_config::TokenRole;
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::rights::Rights;
use super::{ADDRESSES, fault, read_database};
use crate::Control;
use crate::caller::Caller;
use crate::commands::{Cell, Dispatch, Procedure};
use crate::operation::{Answer, Api, Given, Operation, Routes, answer, limit};

/// Number of rows that are returned without `limit`.
const SOME: usize = 1_000;

/// Most rows of one reply.
const MOST: usize = 10_000;

/// Lists in progress, of the operator and of all tenants. Each may count the rows of the whole table.
static OPERATORS: Semaphore = Semaphore::const_new(2);
static TENANTS: Semaphore = Semaphore::const_new(1);

/// `address.list`.
#[derive(Debug)]
pub(crate) struct ListAddresses(ListQuery);

/// The query that selects rows.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ListQuery {
    /// Group
    group: Option<i64>,
    /// Part of the address or of the tag
    contains: Option<String>,
    /// `next` of the page before; without it, the first page
    #[schemars(extend("pattern" = "^(id--?|row-)[0-9]{1,18}$"))]
    after: Option<String>,
    /// Maximum number of rows (default: 1000)
    #[schemars(extend("minimum" = 1, "maximum" = MOST))]
    limit: Option<usize>,
}

/// Rows of the table of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressRows {
    /// The database or the file.
    pub source: String,
    /// Whether rows can be added and removed here; not if they are in a file.
    pub is_writable: bool,
    /// Number of rows that match; null if the page is not the first one of the database.
    pub total: Option<u64>,
    /// The rows, in the order of their ids.
    pub rows: Vec<AddressRow>,
    /// Value of `after` for the next page; null if this is the last one.
    pub next: Option<String>,
}

/// A row as it is stored. A column that is NULL is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressRow {
    /// Id.
    pub id: Option<Cell>,
    /// Group.
    pub group: Option<Cell>,
    /// Address, network or name.
    pub address: Option<String>,
    /// Bits of the network.
    pub mask: Option<Cell>,
    /// Port; 0 for any.
    pub port: Option<Cell>,
    /// Tag.
    pub tag: Option<String>,
}

impl AddressRow {
    /// The row as it is stored, with its id; `None` if its id is no number.
    pub(super) fn stored(self) -> Option<(i64, StoredRow)> {
        let text = |cell: Cell| match cell {
            Cell::Number(number) => number.to_string(),
            Cell::Text(text) => text,
        };
        let id = self.id.map(text)?;
        let number = id.parse().ok()?;
        let row = StoredRow {
            id: Some(id),
            group: self.group.map(text),
            ip_addr: self.address,
            mask: self.mask.map(text),
            port: self.port.map(text),
            tag: self.tag,
        };
        Some((number, row))
    }
}

impl Procedure for ListAddresses {
    type Reply = AddressRows;

    const NEEDS: TokenRole = TokenRole::Read;
    const IS_OPEN: bool = true;

    async fn execute(self, control: &Control, caller: &Caller) -> Result<AddressRows, Fault> {
        let Self(query) = self;
        let rights = Rights::of(control, caller)?;
        let most = limit("limit", query.limit, SOME, MOST)?;
        let is_operator = caller.is_operator();
        let after = query
            .after
            .as_deref()
            .map_or(Ok(Cursor::START), str::parse::<Cursor>);
        let after = after.map_err(|error| Fault::new(400, error.to_string()))?;
        let filter = query.filter(&rights);
        let lists = if is_operator { &OPERATORS } else { &TENANTS };
        let _turn = lists.acquire().await;
        read_database(control, move |database| async move {
            let page = database.page(&filter, after, most).await;
            let page = page.map_err(|error| fault(&error))?;
            Ok(AddressRows {
                source: source(&database, is_operator),
                is_writable: database.must_be_a_table().is_ok(),
                total: page.total,
                rows: page.rows.into_iter().map(AddressRow::from).collect(),
                next: page.next.map(|next| next.to_string()),
            })
        })
        .await
    }
}

/// The database or the file. A tenant does not learn where it is.
fn source(database: &Database, is_operator: bool) -> String {
    match (is_operator, database.address_file()) {
        (true, _) => database.address_source(),
        (false, None) => "database".to_owned(),
        (false, Some(_)) => "file".to_owned(),
    }
}

impl ListQuery {
    /// The rows that match and that the caller may see.
    fn filter(self, rights: &Rights) -> RowFilter {
        let groups = match self.group {
            None => rights.seen(),
            Some(group) if rights.sees(group) => Some(vec![group]),
            Some(_) => Some(Vec::new()),
        };
        RowFilter {
            groups,
            contains: self.contains.filter(|text| !text.is_empty()),
        }
    }
}

impl From<StoredRow> for AddressRow {
    fn from(row: StoredRow) -> Self {
        Self {
            id: row.id.map(Cell::from),
            group: row.group.map(Cell::from),
            address: row.ip_addr,
            mask: row.mask.map(Cell::from),
            port: row.port.map(Cell::from),
            tag: row.tag,
        }
    }
}

impl ListAddresses {
    /// `GET /v1/addresses`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<AddressRows>(
            Method::GET,
            ADDRESSES,
            "listAddresses",
            "List the rows of the address table as they are stored; for a tenant, those of its groups",
        );
        let get = get.query::<ListQuery>(&[]).answers(200, "The rows");
        routes.on(get.refuses(&[503]), list)
    }
}

async fn list(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(query): Given<ListQuery>,
) -> Answer {
    answer(ListAddresses(query).dispatch(&control, &caller).await)
}
