//! Imports of many rows.

use std::time::Duration;

use portcullis_database::{Failure, Link, Value, Whole};

use super::{Absent, Database, DatabaseError, NewRow, STALL};

/// Rows per statement: enough to make the cost of a statement small, and far below the limits on parameters (SQLite: 32,766) and bytes
/// (MySQL: 16 MiB and more).
const ROWS_AT_ONCE: usize = 1000;

/// Time limit for removing a million rows, or for committing them.
const PATIENCE: Duration = Duration::from_secs(120);

/// Result of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Number of rows added.
    pub added: u64,
    /// Number of rows removed.
    pub removed: u64,
}

impl Database {
    /// Adds all rows or none, in their order, after the existing rows or instead of them (`replace`). Readers see the table either as it
    /// was before or as it is afterwards. The rows must have passed [`NewRow::check`].
    ///
    /// # Errors
    /// If the rows are in a file, or the database fails. Nothing has changed then, unless the engine of the table has no transactions
    /// (MyISAM, Aria), which the error says.
    pub async fn import(&self, rows: &[NewRow], replace: bool) -> Result<Imported, DatabaseError> {
        self.must_be_a_table()?;
        let mut link = self.open(Absent::Make).await?;
        self.check_address_version(&mut link).await?;
        let whole = link.begin_whole(&self.schema.address.table).await?;
        let imported = self.replace(&mut link, rows, replace).await;
        // A connection that is dropped ends its transaction without a change.
        let imported = imported.map_err(|error| match whole {
            Whole::Transaction => error,
            Whole::Lock => self.half_done(error),
        })?;
        link.set_limit(PATIENCE);
        link.commit().await?;
        link.release().await;
        Ok(imported)
    }

    async fn replace(
        &self,
        link: &mut Link,
        rows: &[NewRow],
        replace: bool,
    ) -> Result<Imported, DatabaseError> {
        let mut removed = 0;
        if replace {
            link.set_limit(PATIENCE);
            let deleted = link.run(&self.statements().delete_all()).await;
            removed = deleted.map_err(|failure| self.told(failure))?;
            link.set_limit(STALL);
        }
        for rows in rows.chunks(ROWS_AT_ONCE) {
            self.insert(link, rows).await?;
        }
        let added = rows.len() as u64;
        Ok(Imported { added, removed })
    }

    /// Adds rows with one statement.
    pub(super) async fn insert(
        &self,
        link: &mut Link,
        rows: &[NewRow],
    ) -> Result<(), DatabaseError> {
        let values: Vec<Value<'_>> = rows.iter().flat_map(NewRow::values).collect();
        let insert = self.statements().insert(rows.len());
        let inserted = link.execute(&insert, &values).await;
        inserted.map(drop).map_err(|failure| self.told(failure))
    }

    fn half_done(&self, error: DatabaseError) -> DatabaseError {
        let DatabaseError::Database(Failure::Failed { url, cause }) = error else {
            return error;
        };
        let table = &self.schema.address.table;
        let cause = format!(
            "{cause}; the engine of table `{table}` has no transactions, so some of the rows may have been added: import again with \
             --replace, or ALTER TABLE {table} ENGINE = InnoDB"
        );
        Failure::Failed { url, cause }.into()
    }
}
