//! Imports of many rows.

use std::time::Duration;

use portcullis_database::{Failure, Link, Try, Value, Whole};

use super::filter::RowFilter;
use super::{Absent, AddError, Database, DatabaseError, NewRow, STALL};

/// Rows per statement: enough to make the cost of a statement small, and far below the limits on parameters (SQLite: 32,766) and bytes
/// (MySQL: 16 MiB and more).
pub(super) const ROWS_AT_ONCE: usize = 1000;

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

/// How many rows some groups may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowBound {
    /// The groups.
    pub groups: Vec<i64>,
    /// Most rows of all these groups together.
    pub most: u64,
}

impl Database {
    /// Adds all rows or none, in their order, after the existing rows or instead of them (`replace`). Readers see the table either as it
    /// was before or as it is afterwards. The rows must have passed [`NewRow::check`].
    ///
    /// # Errors
    /// If the rows are in a file, or the database fails. Nothing has changed then, unless the engine of the table has no transactions
    /// (MyISAM, Aria), which the error says.
    pub async fn import(&self, rows: &[NewRow], replace: bool) -> Result<Imported, DatabaseError> {
        let import = async |one: Try| {
            self.must_not_be_done(one)?;
            let (mut link, whole) = self.begin_import().await?;
            let imported = self.replace(&mut link, rows, replace).await;
            // A connection that is dropped ends its transaction without a change.
            let imported = imported.map_err(|error| self.undone(error, whole))?;
            end_import(link).await?;
            Ok(imported)
        };
        self.connections.retried(import).await
    }

    /// Adds all rows or none, if the groups of `bound` then have no more rows than they may. Others that add rows in this way, on any host
    /// of the database, wait meanwhile, so that the sum of all is bounded, too. The rows must have passed [`NewRow::check`].
    ///
    /// # Errors
    /// If the rows would be too many, are in a file, or the database fails. Nothing has changed then; see [`import`](Self::import).
    pub async fn add_within(&self, rows: &[NewRow], bound: &RowBound) -> Result<(), AddError> {
        let add = async |one: Try| {
            self.must_not_be_done(one)?;
            let (link, whole) = self.begin_import().await?;
            let more = rows.len() as u64;
            let mut link = self.alone_with_room(link, whole, more, bound).await?;
            let added = self.replace(&mut link, rows, false).await;
            added.map_err(|error| self.undone(error, whole))?;
            end_import(link).await?;
            Ok(())
        };
        self.connections.retried(add).await
    }

    /// Many rows are not written again if they may have been written: other rows may have been added or removed since.
    pub(super) fn must_not_be_done(&self, one: Try) -> Result<(), DatabaseError> {
        match one.may_be_done {
            false => Ok(()),
            true => Err(Failure::Failed {
                url: self.url().to_string(),
                cause: "the connection was lost before the answer: look whether the rows are there before you write them again".to_owned(),
            }
            .into()),
        }
    }

    /// Checks whether [`add_within`](Self::add_within) would add so many rows now.
    ///
    /// # Errors
    /// If they would be too many, or the database fails.
    pub async fn check_within(&self, more: u64, bound: &RowBound) -> Result<(), AddError> {
        self.must_be_a_table()?;
        let mut link = self.open(Absent::Make).await?;
        self.check_room(&mut link, more, bound).await?;
        link.release().await;
        Ok(())
    }

    async fn check_room(
        &self,
        link: &mut Link,
        more: u64,
        bound: &RowBound,
    ) -> Result<(), AddError> {
        let most = bound.most;
        let filter = RowFilter {
            groups: Some(bound.groups.clone()),
            contains: None,
        };
        let rows = self.count_over(link, &filter).await?;
        match rows.saturating_add(more) <= most {
            true => Ok(()),
            false => Err(AddError::TooMany { rows, more, most }),
        }
    }

    /// Makes other writers wait, and checks whether the groups have room for so many more rows. Without room, nothing is left begun.
    pub(super) async fn alone_with_room(
        &self,
        mut link: Link,
        whole: Whole,
        more: u64,
        bound: &RowBound,
    ) -> Result<Link, AddError> {
        if whole == Whole::Transaction {
            link.be_alone(&self.schema.address.table).await?;
        }
        if let Err(error) = self.check_room(&mut link, more, bound).await {
            link.release().await;
            return Err(error);
        }
        Ok(link)
    }

    async fn begin_import(&self) -> Result<(Link, Whole), DatabaseError> {
        let mut link = self.open_to_write().await?;
        let whole = link.begin_whole(&self.schema.address.table).await?;
        Ok((link, whole))
    }

    /// A connection to a table of the version that this host writes, which is made if it is absent.
    pub(super) async fn open_to_write(&self) -> Result<Link, DatabaseError> {
        self.must_be_a_table()?;
        let mut link = self.open(Absent::Make).await?;
        self.check_address_version(&mut link).await?;
        Ok(link)
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
        let insert = self.statements().each().insert(rows.len());
        let inserted = link.execute(&insert, &values).await;
        inserted.map(drop).map_err(|failure| self.told(failure))
    }

    /// The error of an import that was begun.
    fn undone(&self, error: DatabaseError, whole: Whole) -> DatabaseError {
        match whole {
            Whole::Transaction => error,
            Whole::Lock => self.half_done(error),
        }
    }

    fn half_done(&self, error: DatabaseError) -> DatabaseError {
        let DatabaseError::Database(
            Failure::Failed { url, cause }
            | Failure::Conflict { url, cause }
            | Failure::NotServing { url, cause }
            | Failure::ReadOnly { url, cause },
        ) = error
        else {
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

pub(super) async fn end_import(mut link: Link) -> Result<(), DatabaseError> {
    link.set_limit(PATIENCE);
    link.commit().await?;
    link.release().await;
    Ok(())
}
