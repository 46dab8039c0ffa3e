//! The audit in the database: actions of operators and tenants on all hosts.

use portcullis_database::{Failure, Link, ReadError, Record, Value};

use super::{Store, signed};
use crate::action::{Action, ActionBounds, ActionFilter, StoredAction};
use crate::error::StoreError;

/// The columns of an action, in the order in which they are written and read.
const ACTION: &str = "`host`, `process`, `number`, `at`, `author`, `tenant`, `token`, `door`, `command`, `seat`, `subject`, `error`";

/// Most actions that [`Store::note`] writes in one statement: SQLite has a limit for the number of values.
pub const MOST_NOTED: usize = 50;

/// Rows that one statement deletes.
const DELETED_AT_ONCE: u64 = 1_000;

/// Most statements of one deletion. What is left is deleted by the next one.
const MOST_DELETIONS: usize = 100;

impl Store {
    /// Writes up to [`MOST_NOTED`] actions. Those that are stored already are left as they are, so that the call can be repeated when its
    /// result is unknown.
    ///
    /// # Errors
    /// When they cannot be written; then none of them is.
    pub async fn note(&self, actions: &[Action]) -> Result<(), StoreError> {
        if actions.is_empty() {
            return Ok(());
        }
        let row = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let rows = vec![row; actions.len()].join(", ");
        let mut link = self.open_unseen().await?;
        let insert = link
            .dialect()
            .insert_if_absent(&format!("`portcullis_audit` ({ACTION}) VALUES {rows}"));
        let values: Vec<_> = actions.iter().flat_map(values).collect();
        let done = link.execute(&insert, &values).await;
        // A connection that does not answer is closed. After another failure it is kept: with SQLite, a new one lets the host read its tables again.
        if !matches!(done, Err(Failure::Hung { .. })) {
            link.release().await;
        }
        done?;
        Ok(())
    }

    /// Returns up to `most` actions, the newest first.
    ///
    /// # Errors
    /// When the database cannot be reached or has no such table.
    pub async fn actions(
        &self,
        filter: &ActionFilter,
        most: u32,
    ) -> Result<Vec<StoredAction>, StoreError> {
        let texts = [
            ("`host` = ?", &filter.host),
            ("`tenant` = ?", &filter.tenant),
            ("`seat` = ?", &filter.seat),
            ("`command` = ?", &filter.command),
            ("`author` = ?", &filter.author),
        ];
        let numbers = [("`id` < ?", filter.before), ("`id` > ?", filter.after)];
        let mut conditions = Vec::new();
        let mut values: Vec<Value<'_>> = Vec::new();
        for (condition, value) in &texts {
            if let Some(value) = value {
                conditions.push(*condition);
                values.push(value.into());
            }
        }
        for (condition, value) in numbers {
            if let Some(value) = value {
                conditions.push(condition);
                values.push(signed(value).into());
            }
        }
        let condition = match conditions.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", conditions.join(" AND ")),
        };
        values.push(i64::from(most).into());
        let query = format!(
            "SELECT `id`, {ACTION} FROM `portcullis_audit`{condition} ORDER BY `id` DESC LIMIT ?"
        );
        self.rows(&query, &values, action).await
    }

    /// Deletes actions beyond these bounds. Returns their number.
    ///
    /// # Errors
    /// When they cannot be deleted. Some of them may have been.
    pub async fn prune_actions(&self, bounds: &ActionBounds) -> Result<u64, StoreError> {
        let mut link = self.open_unseen().await?;
        let old = Selected {
            condition: "`at` < ?".to_owned(),
            values: vec![signed(bounds.since).into()],
        };
        let mut deleted = old.delete(&mut link).await?;
        for (column, name) in busiest(&mut link, bounds.rows_of_one).await? {
            let own = Selected {
                condition: format!("`{column}` = ?"),
                values: vec![(&name).into()],
            };
            deleted += own.delete_all_but(bounds.rows_of_one, &mut link).await?;
        }
        let all = Selected {
            condition: "1 = 1".to_owned(),
            values: Vec::new(),
        };
        deleted += all.delete_all_but(bounds.rows, &mut link).await?;
        link.release().await;
        Ok(deleted)
    }
}

/// The tenants and the named tokens with more actions than this, each with its column.
async fn busiest(link: &mut Link, most: u64) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut all = Vec::new();
    for column in ["tenant", "token"] {
        let query = format!(
            "SELECT `{column}` FROM `portcullis_audit` WHERE `{column}` IS NOT NULL GROUP BY `{column}` HAVING COUNT(*) > ?"
        );
        let values = [signed(most).into()];
        let names = link.rows(&query, &values, |row| row.text(0)).await?;
        all.extend(names.into_iter().flatten().map(|name| (column, name)));
    }
    Ok(all)
}

/// Rows that match a condition.
struct Selected<'v> {
    condition: String,
    values: Vec<Value<'v>>,
}

impl Selected<'_> {
    /// Deletes the rows, some at a time, so that no statement takes long.
    async fn delete(&self, link: &mut Link) -> Result<u64, Failure> {
        let mut deleted = 0;
        for _ in 0..MOST_DELETIONS {
            let last = self.id_at(DELETED_AT_ONCE - 1, "ASC", link).await?;
            let (upper, bound) = match last {
                Some(last) => (" AND `id` <= ?", Some(last)),
                None => ("", None),
            };
            let condition = &self.condition;
            let delete = format!("DELETE FROM `portcullis_audit` WHERE {condition}{upper}");
            let mut values = self.values.clone();
            values.extend(bound.map(Value::from));
            deleted += link.execute(&delete, &values).await?;
            if last.is_none() {
                break;
            }
        }
        Ok(deleted)
    }

    /// Deletes all rows but this number of the newest ones.
    async fn delete_all_but(&self, most: u64, link: &mut Link) -> Result<u64, Failure> {
        let Some(first) = self.id_at(most, "DESC", link).await? else {
            return Ok(0);
        };
        let mut values = self.values.clone();
        values.push(first.into());
        let older = Selected {
            condition: format!("{} AND `id` <= ?", self.condition),
            values,
        };
        older.delete(link).await
    }

    /// The id of the row at this place, from 0, in the order of the ids; `None` if there are fewer rows.
    async fn id_at(
        &self,
        place: u64,
        order: &str,
        link: &mut Link,
    ) -> Result<Option<i64>, Failure> {
        let condition = &self.condition;
        let query = format!(
            "SELECT `id` FROM `portcullis_audit` WHERE {condition} ORDER BY `id` {order} LIMIT 1 OFFSET {place}"
        );
        let found = link.row(&query, &self.values, |row| row.integer(0)).await?;
        Ok(found.flatten())
    }
}

/// The values of an action.
fn values(action: &Action) -> [Value<'_>; 12] {
    [
        (&action.host).into(),
        (&action.process).into(),
        signed(action.number).into(),
        signed(action.at).into(),
        (&action.author).into(),
        (&action.tenant).into(),
        (&action.token).into(),
        (&action.door).into(),
        (&action.command).into(),
        (&action.seat).into(),
        (&action.subject).into(),
        (&action.error).into(),
    ]
}

fn action(row: &Record) -> Result<StoredAction, ReadError> {
    let text = |at| Ok(row.text(at)?.unwrap_or_default());
    let number = |at| Ok(row.integer(at)?.unwrap_or(0).unsigned_abs());
    Ok(StoredAction {
        id: number(0)?,
        action: Action {
            host: text(1)?,
            process: text(2)?,
            number: number(3)?,
            at: number(4)?,
            author: text(5)?,
            tenant: row.text(6)?,
            token: row.text(7)?,
            door: text(8)?,
            command: text(9)?,
            seat: row.text(10)?,
            subject: row.text(11)?,
            error: row.text(12)?,
        },
    })
}
