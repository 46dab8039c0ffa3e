//! Writes of single rows, which are repeated if need be and do not act twice.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::Connections;
use super::retry::Try;
use crate::link::{Link, Value};
use crate::row_statements::RowStatements;
use crate::{Failure, Unchanged};

/// The table has no ids, or its largest one was not read.
const NO_ID: i64 = -1;

impl Connections {
    /// Runs a statement that deletes rows, with this time limit for each answer. Returns the number of rows deleted, also if only an earlier
    /// try has deleted them.
    ///
    /// # Errors
    /// When the database fails; see [`retried`](Self::retried).
    pub async fn delete_rows(
        &self,
        limit: Duration,
        delete: &str,
        values: &[Value<'_>],
    ) -> Result<u64, Failure> {
        let earlier = AtomicU64::new(0);
        let delete = async |one: Try| {
            let mut link = self.take_existing(limit).await?;
            link.begin_write(None).await?;
            let deleted = link.execute(delete, values).await?;
            let before = earlier.fetch_max(deleted, Ordering::Relaxed);
            link.commit().await?;
            link.release().await;
            Ok(match deleted == 0 && one.may_be_done {
                true => before,
                false => deleted,
            })
        };
        self.retried(delete).await
    }

    /// Inserts a row, with this time limit for each answer. Returns its id, if the table gives ids. A value that does not fit its column is an
    /// error. After a lost connection, the row is inserted again only if no such row has been added since; if the table has no ids, that cannot
    /// be seen, and the loss is an error.
    ///
    /// # Errors
    /// When the database fails; see [`retried`](Self::retried).
    pub async fn insert_row<const COLUMNS: usize>(
        &self,
        limit: Duration,
        statements: &RowStatements<'_, COLUMNS>,
        row: [Value<'_>; COLUMNS],
    ) -> Result<Option<i64>, Failure> {
        let texts = row.map(text);
        // The largest id before the first try.
        let largest = AtomicI64::new(NO_ID);
        let write = async |one: Try| {
            let mut link = self.take_existing(limit).await?;
            link.be_strict().await?;
            if one.may_be_done {
                let added = match largest.load(Ordering::Relaxed) {
                    NO_ID => return Err(not_known(&link)),
                    before => added_since(&mut link, statements, before, &texts).await?,
                };
                if added.is_some() {
                    link.release().await;
                    return Ok(added);
                }
            } else {
                let now = largest_id(&mut link, statements).await?;
                largest.store(now.unwrap_or(NO_ID), Ordering::Relaxed);
            }
            let has_id = largest.load(Ordering::Relaxed) != NO_ID;
            let id = statements.insert_one(&mut link, has_id, &row).await?;
            link.release().await;
            Ok(id)
        };
        self.retried(write).await
    }

    /// Replaces the columns of the row with an id by new values, if they still have those that were read, with this time limit for each answer.
    /// Returns whether they had.
    ///
    /// # Errors
    /// When the database fails; see [`retried`](Self::retried).
    pub async fn replace_row<const COLUMNS: usize>(
        &self,
        limit: Duration,
        statements: &RowStatements<'_, COLUMNS>,
        id: i64,
        read: [&Option<String>; COLUMNS],
        new: [Value<'_>; COLUMNS],
    ) -> Result<bool, Failure> {
        let texts = new.map(text);
        let write = async |one: Try| {
            let mut link = self.take_existing(limit).await?;
            link.be_strict().await?;
            let (update, values) = statements.replace_one(id, read, new);
            let mut changed = link.execute(&update, &values).await?;
            if changed == 0 && one.may_be_done {
                // A row that has the new values already was changed by the earlier try.
                let (update, values) = statements.replace_one(id, texts.each_ref(), new);
                changed = link.execute(&update, &values).await?;
            }
            link.release().await;
            Ok(changed > 0)
        };
        self.retried(write).await
    }
}

/// The largest id of a table; `None` if it has no ids.
async fn largest_id<const COLUMNS: usize>(
    link: &mut Link,
    statements: &RowStatements<'_, COLUMNS>,
) -> Result<Option<i64>, Failure> {
    let (id, table) = (statements.id.quoted(), statements.table.quoted());
    let largest = statements
        .dialect
        .as_text(&format!("COALESCE(MAX({id}), 0)"));
    let query = format!("SELECT {largest} FROM {table}");
    match link.row(&query, &[], |row| row.text(0)).await {
        Ok(largest) => Ok(largest.flatten().and_then(|largest| largest.parse().ok())),
        Err(Failure::NoColumn { .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The id of the first row with these values that was added after this id.
async fn added_since<const COLUMNS: usize>(
    link: &mut Link,
    statements: &RowStatements<'_, COLUMNS>,
    before: i64,
    row: &[Option<String>; COLUMNS],
) -> Result<Option<i64>, Failure> {
    let columns = statements.columns.into_iter().zip(row);
    let Unchanged { condition, values } = Unchanged::of(statements.dialect, columns);
    let (id, table) = (statements.id.quoted(), statements.table.quoted());
    let first = statements.dialect.as_text(&format!("MIN({id})"));
    let query = format!("SELECT {first} FROM {table} WHERE {id} > ?{condition}");
    let values: Vec<_> = [before.into()].into_iter().chain(values).collect();
    let first = link.row(&query, &values, |row| row.text(0)).await?;
    Ok(first.flatten().and_then(|id| id.parse().ok()))
}

/// A write must not be repeated, and whether it was done cannot be seen.
fn not_known(link: &Link) -> Failure {
    Failure::Failed {
        url: link.url().to_string(),
        cause: "the connection was lost before the answer, and the table has no ids: look whether the row is there before you add it again"
            .to_owned(),
    }
}

/// A value as it is stored, as text. Bytes do not occur in Kamailio's tables.
fn text(value: Value<'_>) -> Option<String> {
    match value {
        Value::Integer(number) => number.map(|number| number.to_string()),
        Value::Text(text) => text.map(str::to_owned),
        Value::Bytes(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row_statements::ROW_ID;
    use crate::{DatabaseUrl, Name};

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_row_that_an_earlier_try_has_added_is_found_and_one_from_before_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.db");
        std::fs::write(&path, b"").unwrap();
        let connections = Connections::new(DatabaseUrl::Sqlite(path));
        let (table, number, tag) = (
            Name::known("rows"),
            Name::known("number"),
            Name::known("tag"),
        );
        let statements = RowStatements {
            table: &table,
            id: &ROW_ID,
            columns: [&number, &tag],
            dialect: connections.dialect(),
        };
        let mut link = connections.take(LIMIT).await.unwrap();
        let create =
            "CREATE TABLE rows (id INTEGER PRIMARY KEY AUTOINCREMENT, number INTEGER, tag TEXT)";
        link.run(create).await.unwrap();
        let row = || [Value::from(7_i64), Value::Text(None)];
        let insert = || connections.insert_row(LIMIT, &statements, row());
        assert_eq!(insert().await.unwrap(), Some(1));
        let before = largest_id(&mut link, &statements).await.unwrap();
        assert_eq!(before, Some(1));
        let texts = row().map(text);
        let mut added = async || {
            let added = added_since(&mut link, &statements, 1, &texts);
            added.await.unwrap()
        };
        assert_eq!(added().await, None);
        assert_eq!(insert().await.unwrap(), Some(2));
        assert_eq!(added().await, Some(2));
        let new = [Value::from(8_i64), Value::from("x")];
        let read = texts.each_ref();
        let replace = || connections.replace_row(LIMIT, &statements, 2, read, new);
        assert!(replace().await.unwrap());
        assert!(!replace().await.unwrap(), "it is not as it was read");
        let delete = "DELETE FROM rows WHERE number = ?";
        let seven = [7_i64.into()];
        let deleted = connections.delete_rows(LIMIT, delete, &seven);
        assert_eq!(deleted.await.unwrap(), 1);
    }
}
