//! Writes of single rows, which are repeated if need be and do not act twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::Connections;
use super::retry::Try;
use crate::failure::Retry;
use crate::link::{Link, Value, Whole};
use crate::row_statements::RowStatements;
use crate::{Failure, Unchanged};

/// What the earlier tries of an insertion have left in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Earlier {
    /// Nothing: a transaction that was not told to commit ends with its connection.
    Nothing,
    /// A row with this id, or nothing: the answer to COMMIT is missing. It may still be committed.
    Row(i64),
    /// A row with an id above this one, or nothing: the table has no transactions.
    Above(i64),
    /// A row, or nothing, and the table has no ids.
    Unseen,
}

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
    /// error.
    ///
    /// If the answer to COMMIT is missing, the row is inserted again with the id that it was given: two rows with one id exclude each other,
    /// also if the first one is committed later, on another node of a cluster. If the table has no ids, the loss is an error. A table without
    /// transactions gets the row again unless such a row has been added since, so that it may have the row twice if the server executes the
    /// first statement later.
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
        let earlier = Mutex::new(Earlier::Nothing);
        let write = async |_: Try| {
            let mut link = self.take_existing(limit).await?;
            link.be_strict().await?;
            let left = *earlier.lock();
            let id = match left {
                Earlier::Nothing => insert_new(&mut link, statements, &row, &earlier).await?,
                Earlier::Row(id) => insert_as(&mut link, statements, id, &row, &texts).await?,
                Earlier::Above(before) => {
                    let added = find(&mut link, statements, (">", before), &texts).await?;
                    match added {
                        Some(id) => Some(id),
                        None => insert_new(&mut link, statements, &row, &earlier).await?,
                    }
                }
                Earlier::Unseen => return Err(not_known(&link, "the table has no ids")),
            };
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

/// Inserts a row, and notes in `earlier` what a failure leaves in the table.
async fn insert_new<const COLUMNS: usize>(
    link: &mut Link,
    statements: &RowStatements<'_, COLUMNS>,
    row: &[Value<'_>; COLUMNS],
    earlier: &Mutex<Earlier>,
) -> Result<Option<i64>, Failure> {
    let left = *earlier.lock();
    let largest = largest_id(link, statements).await?;
    let has_id = largest.is_some();
    let done = match link.whole_of(statements.table).await? {
        Whole::Transaction => {
            link.begin_write(None).await?;
            let id = statements.insert_one(link, has_id, row).await?;
            *earlier.lock() = id.map_or(Earlier::Unseen, Earlier::Row);
            link.commit().await.map(|()| id)
        }
        Whole::Lock => {
            if left == Earlier::Nothing {
                *earlier.lock() = largest.map_or(Earlier::Unseen, Earlier::Above);
            }
            statements.insert_one(link, has_id, row).await
        }
    };
    if let Err(failure) = &done
        && failure.retry() != Retry::Unknown
    {
        *earlier.lock() = left;
    }
    done
}

/// Inserts a row with the id that it was given by an earlier try, unless that one is committed. Waits for it if it is being committed; on
/// another node of a cluster, one of both is a conflict.
async fn insert_as<const COLUMNS: usize>(
    link: &mut Link,
    statements: &RowStatements<'_, COLUMNS>,
    id: i64,
    row: &[Value<'_>; COLUMNS],
    texts: &[Option<String>; COLUMNS],
) -> Result<Option<i64>, Failure> {
    let values: Vec<_> = [id.into()].into_iter().chain(*row).collect();
    link.begin_write(None).await?;
    let inserted = link.execute(&statements.insert_as(), &values).await?;
    link.commit().await?;
    if inserted > 0 {
        return Ok(Some(id));
    }
    match find(link, statements, ("=", id), texts).await? {
        Some(id) => Ok(Some(id)),
        None => Err(not_known(link, "its id is that of another row now")),
    }
}

/// The id of the first row with these values whose id compares so.
async fn find<const COLUMNS: usize>(
    link: &mut Link,
    statements: &RowStatements<'_, COLUMNS>,
    (comparison, to): (&str, i64),
    row: &[Option<String>; COLUMNS],
) -> Result<Option<i64>, Failure> {
    let columns = statements.columns.into_iter().zip(row);
    let Unchanged { condition, values } = Unchanged::of(statements.dialect, columns);
    let (id, table) = (statements.id.quoted(), statements.table.quoted());
    let first = statements.dialect.as_text(&format!("MIN({id})"));
    let query = format!("SELECT {first} FROM {table} WHERE {id} {comparison} ?{condition}");
    let values: Vec<_> = [to.into()].into_iter().chain(values).collect();
    let first = link.row(&query, &values, |row| row.text(0)).await?;
    Ok(first.flatten().and_then(|id| id.parse().ok()))
}

/// A write must not be repeated, and whether it was done cannot be seen.
fn not_known(link: &Link, why: &str) -> Failure {
    Failure::Failed {
        url: link.url().to_string(),
        cause: format!(
            "the connection was lost before the answer, and {why}: look whether the row is there before you add it again"
        ),
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

    static TABLE: Name = Name::known("rows");
    static NUMBER: Name = Name::known("number");
    static TAG: Name = Name::known("tag");

    /// A database with this table.
    async fn table(folder: &tempfile::TempDir) -> (Connections, RowStatements<'static, 2>, Link) {
        let path = folder.path().join("rows.db");
        std::fs::write(&path, b"").unwrap();
        let connections = Connections::new(DatabaseUrl::Sqlite(path));
        let statements = RowStatements {
            table: &TABLE,
            id: &ROW_ID,
            columns: [&NUMBER, &TAG],
            dialect: connections.dialect(),
        };
        let mut link = connections.take(LIMIT).await.unwrap();
        let create =
            "CREATE TABLE rows (id INTEGER PRIMARY KEY AUTOINCREMENT, number INTEGER, tag TEXT)";
        link.run(create).await.unwrap();
        (connections, statements, link)
    }

    #[tokio::test]
    async fn a_row_that_an_earlier_try_has_added_is_found_and_one_from_before_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (connections, statements, mut link) = table(&folder).await;
        let row = || [Value::from(7_i64), Value::Text(None)];
        let insert = || connections.insert_row(LIMIT, &statements, row());
        assert_eq!(insert().await.unwrap(), Some(1));
        let before = largest_id(&mut link, &statements).await.unwrap();
        assert_eq!(before, Some(1));
        let texts = row().map(text);
        let mut added = async || {
            let added = find(&mut link, &statements, (">", 1), &texts);
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
    #[tokio::test]
    async fn a_row_whose_commit_is_in_doubt_is_stored_once_under_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let (_connections, statements, mut link) = table(&folder).await;
        let row = [Value::from(7_i64), Value::from("a")];
        let texts = row.map(text);
        let earlier = Mutex::new(Earlier::Nothing);
        let first = insert_new(&mut link, &statements, &row, &earlier);
        assert_eq!(first.await.unwrap(), Some(1));
        assert_eq!(*earlier.lock(), Earlier::Row(1));
        // It was committed.
        let again = insert_as(&mut link, &statements, 1, &row, &texts).await;
        assert_eq!(again.unwrap(), Some(1));
        // It was not.
        let again = insert_as(&mut link, &statements, 9, &row, &texts).await;
        assert_eq!(again.unwrap(), Some(9));
        let count = "SELECT COUNT(*) FROM rows";
        let count = link.row(count, &[], |row| row.integer(0)).await.unwrap();
        assert_eq!(count.flatten(), Some(2));
        // The id is that of another row.
        let other = [Value::from(8_i64), Value::from("a")];
        let texts = other.map(text);
        let error = insert_as(&mut link, &statements, 9, &other, &texts).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("look whether the row is there"), "{error}");
    }
}
