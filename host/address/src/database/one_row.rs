//! Single rows by their ids: read, replaced and removed, if they are still as they were read.

use super::{Absent, AddError, Database, DatabaseError, NewRow, STALL, StoredRow};
use crate::row::RowWarning;

impl Database {
    /// Returns the rows of the table of addresses with this id: one at most, unless the table is a view with ids that are not unique. None if
    /// the table has no ids.
    ///
    /// # Errors
    /// If the rows are in a file, or the database fails.
    pub async fn rows_with_id(&self, id: i64) -> Result<Vec<StoredRow>, DatabaseError> {
        self.must_be_a_table()?;
        let mut link = self.open(Absent::Refuse).await?;
        let has_id = self.has_id(&mut link).await?;
        self.check_address_version(&mut link).await?;
        if !has_id {
            link.release().await;
            return Ok(Vec::new());
        }
        let rows = self.statements().each().stored(&mut link, id).await;
        let rows = rows.map_err(|failure| self.told(failure))?;
        link.release().await;
        Ok(rows.into_iter().map(StoredRow::from).collect())
    }

    /// Removes the row with this id if it is still as it was read. Returns whether it was.
    ///
    /// # Errors
    /// If the rows are in a file, or the database fails.
    pub async fn remove_row(&self, id: i64, read: &StoredRow) -> Result<bool, DatabaseError> {
        self.must_be_a_table()?;
        let statements = self.statements().each();
        let (delete, values) = statements.delete_one(id, columns(read));
        Ok(self.change(&delete, &values).await? > 0)
    }

    /// Replaces the row with this id, unless a load would skip the new one, if the row is still as it was read. Returns whether it was, and
    /// the warning of a load.
    ///
    /// # Errors
    /// If the new row is invalid, the rows are in a file, or the database fails.
    pub async fn replace_row(
        &self,
        id: i64,
        read: &StoredRow,
        new: &NewRow,
    ) -> Result<(bool, Option<RowWarning>), AddError> {
        self.must_be_a_table()?;
        let warning = new.check()?;
        let statements = self.statements().each();
        let (read, new) = (columns(read), new.values());
        let replaced = self
            .connections
            .replace_row(STALL, &statements, id, read, new);
        let was_as_read = replaced.await.map_err(|failure| self.told(failure))?;
        Ok((was_as_read, warning))
    }
}

/// The columns of a row in the order of the statements.
pub(super) fn columns(read: &StoredRow) -> [&Option<String>; 5] {
    [
        &read.group,
        &read.ip_addr,
        &read.mask,
        &read.port,
        &read.tag,
    ]
}
