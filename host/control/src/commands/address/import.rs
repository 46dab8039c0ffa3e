//! `address.import`, over HTTP: the rows of a file.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Method, header};
use portcullis_address::{Format, NewRow};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::rights::Rights;
use super::{CHANGES, MOST_BYTES, MOST_LISTED, fault, not_added, with_database};
use crate::Control;
use crate::body::read_body;
use crate::caller::Caller;
use crate::commands::{Dispatch, Procedure};
use crate::operation::{Answer, Api, Given, Operation, Routes, answer};
use crate::room::Purpose;

/// `address.import`.
#[derive(Debug)]
pub(crate) struct Import {
    rows: Vec<NewRow>,
    warnings: Vec<String>,
    is_replacing: bool,
    is_dry: bool,
}

/// How the rows are imported.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ImportQuery {
    /// Whether all existing rows are removed in the same transaction; only the operator may do so
    replace: bool,
    /// Whether the rows are only checked
    dry_run: bool,
    /// Author of the change
    author: Option<String>,
}

/// The result of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RowsImported {
    /// Number of rows that were added, or would be with `dry_run`.
    pub added: u64,
    /// Number of rows that were removed.
    pub removed: u64,
    /// Whether nothing was changed.
    pub is_dry_run: bool,
    /// The first rows that may not mean what was intended, with reasons.
    pub warnings: Vec<String>,
}

impl Procedure for Import {
    type Reply = RowsImported;

    const IS_OPEN: bool = true;

    fn subject(&self) -> Option<String> {
        Some(format!("{} rows", self.rows.len()))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<RowsImported, Fault> {
        let rights = Rights::of(control, caller)?;
        check_replacing(self.is_replacing, caller)?;
        for row in &self.rows {
            rights.check_add(row)?;
        }
        let bound = rights.bound();
        let count = self.rows.len() as u64;
        let Self {
            rows,
            warnings,
            is_replacing,
            is_dry,
        } = self;
        let (added, removed) = with_database(control, move |database| async move {
            database.must_be_a_table().map_err(|error| fault(&error))?;
            match (bound, is_dry) {
                (None, true) => return Ok((count, 0)),
                (Some(bound), true) => database.check_within(count, &bound).await,
                (Some(bound), false) => database.add_within(&rows, &bound).await,
                (None, false) => {
                    let imported = database.import(&rows, is_replacing).await;
                    let imported = imported.map_err(|error| fault(&error))?;
                    return Ok((imported.added, imported.removed));
                }
            }
            .map_err(|error| not_added(&error))?;
            Ok((count, 0))
        })
        .await?;
        Ok(RowsImported {
            added,
            removed,
            is_dry_run: is_dry,
            warnings,
        })
    }
}

impl Import {
    /// `POST /v1/addresses/import`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<RowsImported>(
            Method::POST,
            "/v1/addresses/import",
            "importAddresses",
            "Add the rows of a file to the address table, all of them or none",
        );
        let post = post.query::<ImportQuery>(&[]).body(
            "text/csv",
            json!({"type": "string"}),
            "CSV with a header of column names: grp,ip_addr,mask,port,tag, of which the last three may be omitted. JSON lines with the \
             same names are accepted as application/x-ndjson",
        );
        routes.on(
            post.answers(200, "The rows were added").refuses(CHANGES),
            import,
        )
    }
}

/// # Errors
/// 403 if a tenant would replace the table.
fn check_replacing(is_replacing: bool, caller: &Caller) -> Result<(), Fault> {
    if is_replacing && !caller.is_operator() {
        let text = "a tenant adds rows, and does not replace the table: leave out `replace`";
        return Err(Fault::new(403, text));
    }
    Ok(())
}

async fn import(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(query): Given<ImportQuery>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let media = headers.get(header::CONTENT_TYPE);
    let media = media
        .and_then(|media| media.to_str().ok())
        .unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    let format = match media.eq_ignore_ascii_case("application/x-ndjson") {
        true => Format::JsonLines,
        false => Format::Csv,
    };
    // Before anything of the body is read or kept.
    caller.may(Import::NEEDS)?;
    check_replacing(query.replace, &caller)?;
    if !Rights::of(&control, &caller)?.may_edit_any() {
        let text = "the tenant may not change rows of any group: the operator allows groups by `edit-groups` in its section";
        return Err(Fault::new(403, text).into());
    }
    let (bytes, room) =
        read_body(&control.room, &caller, Purpose::Transfer, body, MOST_BYTES).await?;
    let reading = tokio::task::spawn_blocking(move || format.read(&bytes, "the body"));
    let read = reading.await;
    let read = read.map_err(|error| Fault::new(500, error.to_string()))?;
    drop(room);
    if read.refused > 0 {
        let listed = read.errors.iter().take(MOST_LISTED);
        let listed: Vec<_> = listed.map(ToString::to_string).collect();
        let text = format!(
            "{} rows cannot be used, and nothing was imported: {}",
            read.refused,
            listed.join("; ")
        );
        return Err(Fault::new(422, text).into());
    }
    let command = Import {
        rows: read.rows,
        warnings: super::lines(&read.warnings),
        is_replacing: query.replace,
        is_dry: query.dry_run,
    };
    let caller = caller.called(query.author);
    answer(command.dispatch(&control, &caller).await)
}
