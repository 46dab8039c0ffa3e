//! `address.changeRows`, over HTTP: many changes of the table of addresses in one transaction.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_address::{NewRow, RowChanges, RowsChanged};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::change::{AuthorQuery, RowToAdd};
use super::list::AddressRow;
use super::{MOST_BYTES, MOST_LISTED, not_added, with_database};
use crate::Control;
use crate::body::read_body;
use crate::caller::Caller;
use crate::commands::{Dispatch, Procedure};
use crate::operation::{Answer, Api, Given, Operation, Routes, answer, schema_of};
use crate::room::Purpose;

/// Most changes of one transaction.
const MOST_CHANGES: usize = 10_000;

/// `address.changeRows`.
#[derive(Debug)]
pub(crate) struct ChangeRows {
    changes: RowChanges,
}

/// Changes that are made together or not at all.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ChangesToMake {
    /// Rows to be added.
    add: Vec<RowToAdd>,
    /// Rows to be replaced.
    replace: Vec<RowToReplace>,
    /// Rows to be removed, as they were read.
    remove: Vec<AddressRow>,
}

/// A row to be replaced.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RowToReplace {
    /// The row, as it was read.
    read: AddressRow,
    /// The row that replaces it.
    row: RowToAdd,
}

/// The result of changes that were made together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RowsWereChanged {
    /// Number of rows that were added.
    pub added: u64,
    /// Number of rows that were replaced.
    pub replaced: u64,
    /// Number of rows that were removed.
    pub removed: u64,
}

impl Procedure for ChangeRows {
    type Reply = RowsWereChanged;

    fn subject(&self) -> Option<String> {
        let RowChanges {
            add,
            replace,
            remove,
        } = &self.changes;
        let (add, replace, remove) = (add.len(), replace.len(), remove.len());
        Some(format!(
            "{add} rows added, {replace} replaced, {remove} removed"
        ))
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<RowsWereChanged, Fault> {
        let Self { changes } = self;
        let count = |rows: usize| rows as u64;
        let done = RowsWereChanged {
            added: count(changes.add.len()),
            replaced: count(changes.replace.len()),
            removed: count(changes.remove.len()),
        };
        let changed = with_database(control, move |database| async move {
            let changed = database.change_rows(&changes).await;
            changed.map_err(|error| not_added(&error))
        });
        match changed.await? {
            RowsChanged::Done => Ok(done),
            RowsChanged::Stale(id) => {
                let text = format!(
                    "the row {id} is not as it was read, or gone, and nothing was changed: read the rows again"
                );
                Err(Fault::new(412, text))
            }
        }
    }
}

impl ChangeRows {
    /// `POST /v1/addresses/changes`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<RowsWereChanged>(
            Method::POST,
            "/v1/addresses/changes",
            "changeAddresses",
            "Add, replace and remove rows of the address table in one transaction: all of them or none",
        );
        let post = post.query::<AuthorQuery>(&[]).body(
            "application/json",
            schema_of::<ChangesToMake>(),
            "At most 10,000 changes. A row that is replaced or removed is given as it was read, with its id: if it is another one meanwhile, nothing is changed",
        );
        let post = post.answers(200, "All changes were made");
        routes.on(post.refuses(&[408, 409, 412, 413, 415, 422, 503]), change)
    }
}

impl ChangesToMake {
    /// # Errors
    /// 413 if they are too many, 422 if rows are invalid: the error lists them.
    fn checked(self) -> Result<RowChanges, Fault> {
        let count = self.add.len() + self.replace.len() + self.remove.len();
        if count > MOST_CHANGES {
            let text = format!(
                "{count} changes are too many for one transaction: send at most {MOST_CHANGES}"
            );
            return Err(Fault::new(413, text));
        }
        let mut errors = Vec::new();
        let mut changes = RowChanges::default();
        for (at, row) in self.add.into_iter().enumerate() {
            match usable(row) {
                Ok(row) => changes.add.push(row),
                Err(error) => errors.push(format!("add[{at}]: {error}")),
            }
        }
        for (at, RowToReplace { read, row }) in self.replace.into_iter().enumerate() {
            match (read.stored(), usable(row)) {
                (Some((id, read)), Ok(row)) => changes.replace.push((id, read, row)),
                (None, _) => errors.push(format!("replace[{at}].read has no id")),
                (_, Err(error)) => errors.push(format!("replace[{at}].row: {error}")),
            }
        }
        for (at, read) in self.remove.into_iter().enumerate() {
            match read.stored() {
                Some(read) => changes.remove.push(read),
                None => errors.push(format!("remove[{at}] has no id")),
            }
        }
        if errors.is_empty() {
            return Ok(changes);
        }
        let count = errors.len();
        errors.truncate(MOST_LISTED);
        let text = format!(
            "{count} changes cannot be made, and nothing was changed: {}",
            errors.join("; ")
        );
        Err(Fault::new(422, text))
    }
}

/// A row that a load would use.
fn usable(row: RowToAdd) -> Result<NewRow, String> {
    let row = row.into_row().map_err(|fault| fault.message)?;
    match row.check() {
        Ok(_) => Ok(row),
        Err(error) => Err(error.to_string()),
    }
}

async fn change(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Given(query): Given<AuthorQuery>,
    body: Body,
) -> Answer {
    // Before anything of the body is read or kept.
    caller.may(ChangeRows::NEEDS)?;
    caller.may_ask_about(None)?;
    let (bytes, room) =
        read_body(&control.room, &caller, Purpose::Transfer, body, MOST_BYTES).await?;
    let reading = tokio::task::spawn_blocking(move || {
        let sent: ChangesToMake =
            serde_json::from_slice(&bytes).map_err(|error| Fault::new(400, error.to_string()))?;
        sent.checked()
    });
    let read = reading.await;
    let changes = read.map_err(|error| Fault::new(500, error.to_string()))??;
    drop(room);
    let caller = caller.called(query.author);
    answer(ChangeRows { changes }.dispatch(&control, &caller).await)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_read_back_as_they_were_shown() {
        let shown = json!({"id": 7, "group": "x", "address": "10.0.0.1", "mask": 32, "port": null, "tag": ""});
        let row: AddressRow = serde_json::from_value(shown).unwrap();
        let (id, stored) = row.stored().unwrap();
        assert_eq!(id, 7);
        let columns = (stored.group.as_deref(), stored.mask.as_deref());
        assert_eq!(columns, (Some("x"), Some("32")));
        assert_eq!((stored.port, stored.tag.as_deref()), (None, Some("")));
    }

    #[test]
    fn all_invalid_changes_are_listed() {
        let sent = json!({
            "add": [{"group": 0, "address": "10.0.0.1"}, {"group": 1, "address": "10.0.0.1"}],
            "replace": [{"read": {"id": null, "group": 1, "address": "a", "mask": 32, "port": 0, "tag": null}, "row": {"group": 1, "address": "10.0.0.1"}}],
            "remove": [{"id": "x", "group": 1, "address": "a", "mask": 32, "port": 0, "tag": null}],
        });
        let sent: ChangesToMake = serde_json::from_value(sent).unwrap();
        let fault = sent.checked().unwrap_err();
        assert_eq!(fault.code, 422);
        for part in [
            "3 changes",
            "add[0]: ",
            "replace[0].read has no id",
            "remove[0] has no id",
        ] {
            assert!(fault.message.contains(part), "{part}: {}", fault.message);
        }
    }
}
