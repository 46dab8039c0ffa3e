//! Rows added with the id that they get, and many changes of rows as a unit.

use portcullis_database::{Failure, Link, Try, Whole};

use super::import::{ROWS_AT_ONCE, RowBound, end_import};
use super::one_row::columns;
use super::{AddError, Database, DatabaseError, NewRow, STALL, StoredRow};
use crate::row::RowWarning;

/// Changes of the table that are made together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowChanges {
    /// Rows to be added.
    pub add: Vec<NewRow>,
    /// Rows to be replaced: the id, the row as it was read, and the new one.
    pub replace: Vec<(i64, StoredRow, NewRow)>,
    /// Rows to be removed: the id, and the row as it was read.
    pub remove: Vec<(i64, StoredRow)>,
}

/// Result of changes that are made together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsChanged {
    /// All were made.
    Done,
    /// The row with this id is not as it was read, or gone: none was made.
    Stale(i64),
}

impl Database {
    /// Adds a row, unless a load would skip it. Returns its id, if the table gives ids, and the warning of a load.
    ///
    /// # Errors
    /// If the row is invalid, the rows are in a file, or the database fails.
    pub async fn add_row(
        &self,
        row: &NewRow,
    ) -> Result<(Option<i64>, Option<RowWarning>), AddError> {
        self.must_be_a_table()?;
        let warning = row.check()?;
        let mut link = self.open_to_write().await?;
        // A renamed column of ids that is not there is an error.
        self.has_id(&mut link).await?;
        link.release().await;
        let statements = self.statements();
        let statements = statements.each();
        let added = self
            .connections
            .insert_row(STALL, &statements, row.values());
        let id = added.await.map_err(|failure| self.told(failure))?;
        Ok((id, warning))
    }

    /// The same within a bound: see [`add_within`](Self::add_within).
    ///
    /// # Errors
    /// If the row is invalid, the rows would be too many or are in a file, or the database fails.
    pub async fn add_row_within(
        &self,
        row: &NewRow,
        bound: &RowBound,
    ) -> Result<(Option<i64>, Option<RowWarning>), AddError> {
        let warning = row.check()?;
        let add = async |one: Try| {
            self.must_not_be_done(one)?;
            let (link, whole, has_id) = self.begin_changes().await?;
            let mut link = self.alone_with_room(link, whole, 1, bound).await?;
            let id = self.insert_one(&mut link, has_id, row).await?;
            end_import(link).await?;
            Ok((id, warning.clone()))
        };
        self.connections.retried(add).await
    }

    /// Makes all changes or none: rows are added, then replaced, then removed. Readers see the table either as it was before or as it is
    /// afterwards.
    ///
    /// # Errors
    /// If a row is invalid, the rows are in a file, or the database fails. Nothing has changed then. A table whose engine has no transactions
    /// (MyISAM, Aria) is refused.
    pub async fn change_rows(&self, changes: &RowChanges) -> Result<RowsChanged, AddError> {
        let replacing = changes.replace.iter().map(|(_, _, new)| new);
        for row in changes.add.iter().chain(replacing) {
            row.check()?;
        }
        let change = async |one: Try| {
            self.must_not_be_done(one)?;
            self.change_rows_once(changes).await
        };
        self.connections.retried(change).await
    }

    async fn change_rows_once(&self, changes: &RowChanges) -> Result<RowsChanged, AddError> {
        let (mut link, whole, has_id) = self.begin_changes().await?;
        if whole == Whole::Lock {
            link.release().await;
            let table = &self.schema.address.table;
            let cause = format!(
                "the engine of table `{table}` has no transactions, so several changes cannot be made together: ALTER TABLE {table} ENGINE = \
                 InnoDB"
            );
            let url = self.url().to_string();
            return Err(Failure::Failed { url, cause }.into());
        }
        let first = changes.replace.iter().map(|(id, ..)| *id);
        let first = first.chain(changes.remove.iter().map(|(id, _)| *id)).next();
        if let Some(id) = first.filter(|_| !has_id) {
            link.release().await;
            return Ok(RowsChanged::Stale(id));
        }
        for rows in changes.add.chunks(ROWS_AT_ONCE) {
            self.insert(&mut link, rows).await?;
        }
        // A connection that is dropped ends its transaction without a change.
        if let Some(stale) = self.replace_and_remove(&mut link, changes).await? {
            return Ok(RowsChanged::Stale(stale));
        }
        end_import(link).await?;
        Ok(RowsChanged::Done)
    }

    /// Returns the id of the first row that is not as it was read.
    async fn replace_and_remove(
        &self,
        link: &mut Link,
        changes: &RowChanges,
    ) -> Result<Option<i64>, DatabaseError> {
        let statements = self.statements();
        let each = statements.each();
        for (id, read, new) in &changes.replace {
            let (update, values) = each.replace_one(*id, columns(read), new.values());
            let changed = link.execute(&update, &values).await;
            if changed.map_err(|failure| self.told(failure))? == 0 {
                return Ok(Some(*id));
            }
        }
        for (id, read) in &changes.remove {
            let (delete, values) = each.delete_one(*id, columns(read));
            let removed = link.execute(&delete, &values).await;
            if removed.map_err(|failure| self.told(failure))? == 0 {
                return Ok(Some(*id));
            }
        }
        Ok(None)
    }

    /// Begins a transaction, after the question whether rows have ids, which a table without them would end.
    async fn begin_changes(&self) -> Result<(Link, Whole, bool), AddError> {
        let mut link = self.open_to_write().await?;
        let has_id = self.has_id(&mut link).await?;
        let whole = link.begin_whole(&self.schema.address.table).await?;
        Ok((link, whole, has_id))
    }

    async fn insert_one(
        &self,
        link: &mut Link,
        has_id: bool,
        row: &NewRow,
    ) -> Result<Option<i64>, DatabaseError> {
        let values = row.values();
        let statements = self.statements();
        let id = statements.each().insert_one(link, has_id, &values).await;
        id.map_err(|failure| self.told(failure))
    }
}

#[cfg(test)]
mod tests {
    use portcullis_database::DatabaseUrl;

    use super::*;

    fn row(address: &str, tag: &str) -> NewRow {
        NewRow {
            group: 200,
            ip_addr: address.to_owned(),
            mask: 32,
            port: 0,
            tag: Some(tag.to_owned()),
        }
    }

    /// The addresses and tags of all rows.
    async fn shown(database: &Database, ids: impl IntoIterator<Item = i64>) -> Vec<String> {
        let mut shown = Vec::new();
        for id in ids {
            for row in database.rows_with_id(id).await.unwrap() {
                shown.push(format!("{} {}", row.ip_addr.unwrap(), row.tag.unwrap()));
            }
        }
        shown
    }

    #[tokio::test]
    async fn changes_are_made_together_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::new(DatabaseUrl::Sqlite(folder.path().join("table.db")));
        let mut stored = Vec::new();
        for (address, id) in [("10.0.0.1", 1), ("10.0.0.2", 2)] {
            let added = database.add_row(&row(address, "a")).await.unwrap();
            assert_eq!(added, (Some(id), None));
            stored.extend(database.rows_with_id(id).await.unwrap());
        }
        let [one, two] = stored.try_into().unwrap();
        let changes = RowChanges {
            add: vec![row("10.0.0.3", "b")],
            replace: vec![(1, one, row("10.0.0.1", "b"))],
            remove: vec![(2, two)],
        };
        let done = database.change_rows(&changes).await.unwrap();
        assert_eq!(done, RowsChanged::Done);
        assert_eq!(shown(&database, 1..4).await, ["10.0.0.1 b", "10.0.0.3 b"]);

        // The row that was read is another one now: nothing is added either.
        let again = database.change_rows(&changes).await.unwrap();
        assert_eq!(again, RowsChanged::Stale(1));
        assert_eq!(shown(&database, 1..9).await, ["10.0.0.1 b", "10.0.0.3 b"]);
        let bad = RowChanges {
            add: vec![row("10.0.0.4", "c"), row("300.0.0.1", "c")],
            ..RowChanges::default()
        };
        assert!(database.change_rows(&bad).await.is_err());
        let empty = database.change_rows(&RowChanges::default()).await.unwrap();
        assert_eq!(empty, RowsChanged::Done);
        assert_eq!(shown(&database, 1..9).await, ["10.0.0.1 b", "10.0.0.3 b"]);
    }

    #[tokio::test]
    async fn a_row_is_added_within_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::new(DatabaseUrl::Sqlite(folder.path().join("table.db")));
        let bound = RowBound {
            groups: vec![200],
            most: 1,
        };
        let one = row("10.0.0.1", "a");
        let added = database.add_row_within(&one, &bound).await.unwrap();
        assert_eq!(added, (Some(1), None));
        let error = database.add_row_within(&one, &bound).await.unwrap_err();
        assert!(matches!(error, AddError::TooMany { .. }), "{error}");
    }
}
