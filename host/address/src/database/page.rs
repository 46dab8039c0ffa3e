//! The stored rows in pages.

use portcullis_database::{Failure, Link, TextRow};

use super::filter::{Cursor, RowFilter};
use super::{Absent, Database, DatabaseError, StoredRow};

/// Some of the rows that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowPage {
    /// The rows.
    pub rows: Vec<StoredRow>,
    /// Where the next page begins; `None` if this is the last one.
    pub next: Option<Cursor>,
    /// Number of rows that match; `None` if the page is not the first one: counting reads the whole table.
    pub total: Option<u64>,
}

impl Database {
    /// Returns up to `most` of the rows that match, in the order of their ids. The database reads the rows of the page only, where the
    /// table has ids.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn page(
        &self,
        filter: &RowFilter,
        after: Cursor,
        most: usize,
    ) -> Result<RowPage, DatabaseError> {
        if self.address_file.is_some() {
            return self.page_of_file(filter, after, most).await;
        }
        let mut link = self.open(Absent::Refuse).await?;
        let has_id = self.has_id(&mut link).await?;
        self.check_address_version(&mut link).await?;
        let total = match after {
            Cursor::START => Some(self.count_over(&mut link, filter).await?),
            Cursor::Id(_) | Cursor::Skip(_) => None,
        };
        let id = match after {
            Cursor::Id(id) => Some(id.into()),
            Cursor::Skip(_) => None,
        };
        let values: Vec<_> = id.into_iter().chain(filter.values()).collect();
        let page = self.statements().page(filter, after, most, has_id);
        let rows = link.rows(&page, &values, |row| {
            let columns = std::array::from_fn(|at| row.column(at));
            Ok(StoredRow::from(TextRow::new(columns, 0).stored()))
        });
        let rows = rows.await.map_err(|failure| self.told(failure))?;
        let mut page = RowPage::of(rows, after, most).ok_or_else(|| self.without_place())?;
        let is_by_id = matches!((after, page.next), (Cursor::START, Some(Cursor::Id(_))));
        if is_by_id && self.connections.dialect().sorts_null_last() {
            // No id is greater than that of the last row with one, so that rows without one would never come.
            let null = self.statements().null_id();
            let null = link.row(&null, &[], |row| row.integer(0));
            let null = null.await.map_err(|failure| self.told(failure))?;
            if null.is_some() {
                page.next = Some(Cursor::Skip(most as u64));
            }
        }
        link.release().await;
        Ok(RowPage { total, ..page })
    }

    /// Returns the number of rows that match.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn count_of(&self, filter: &RowFilter) -> Result<u64, DatabaseError> {
        let mut link = self.open(Absent::Refuse).await?;
        let count = self.count_over(&mut link, filter).await?;
        link.release().await;
        Ok(count)
    }

    /// The number of rows that match, over this connection.
    pub(super) async fn count_over(
        &self,
        link: &mut Link,
        filter: &RowFilter,
    ) -> Result<u64, DatabaseError> {
        let values: Vec<_> = filter.values().collect();
        let count = self.statements().count_of(filter);
        let count = link.row(&count, &values, |row| row.integer(0)).await;
        let count = count.map_err(|failure| self.told(failure))?;
        Ok(count.flatten().unwrap_or(0).unsigned_abs())
    }

    async fn page_of_file(
        &self,
        filter: &RowFilter,
        after: Cursor,
        most: usize,
    ) -> Result<RowPage, DatabaseError> {
        let skipped = match after {
            Cursor::Id(_) => 0,
            Cursor::Skip(rows) => rows,
        };
        let (mut total, mut rows) = (0, Vec::new());
        self.each_row(|row| {
            if !filter.selects(&row) {
                return;
            }
            total += 1;
            if total > skipped && rows.len() <= most {
                rows.push(row);
            }
        })
        .await?;
        let has_more = rows.len() > most;
        rows.truncate(most);
        Ok(RowPage {
            rows,
            next: has_more.then_some(Cursor::Skip(skipped + most as u64)),
            total: Some(total),
        })
    }

    /// Rows follow that no page can begin with.
    fn without_place(&self) -> DatabaseError {
        let names = &self.schema.address;
        self.told(Failure::NoColumn {
            url: self.url().to_string(),
            cause: format!(
                "the column `{}` of the table `{}` is NULL or not a whole number up to {} in some rows, so that those after them cannot be listed",
                names.id,
                names.table,
                i64::MAX
            ),
            expected: String::new(),
        })
    }
}

impl RowPage {
    /// The page of rows of which there is one more than `most` if further ones follow. `None` if these begin nowhere: the last row of the
    /// page has no usable id.
    fn of(mut rows: Vec<StoredRow>, after: Cursor, most: usize) -> Option<Self> {
        let has_more = rows.len() > most;
        rows.truncate(most);
        let last = rows.last().and_then(|row| row.id.as_deref()?.parse().ok());
        let next = match (after, last) {
            _ if !has_more => None,
            (Cursor::Id(_) | Cursor::START, Some(id)) => Some(Cursor::Id(id)),
            (Cursor::Id(_), None) => return None,
            (Cursor::Skip(rows), _) => Some(Cursor::Skip(rows + most as u64)),
        };
        Some(Self {
            rows,
            next,
            total: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(ids: &[Option<&str>], after: Cursor) -> Option<Option<Cursor>> {
        let row = |id: &Option<&str>| StoredRow {
            id: id.map(str::to_owned),
            group: None,
            ip_addr: None,
            mask: None,
            port: None,
            tag: None,
        };
        let rows = ids.iter().map(row).collect();
        RowPage::of(rows, after, 2).map(|page| page.next)
    }

    #[test]
    fn a_page_is_followed_by_another_or_by_an_error() {
        let huge = Some("9223372036854775808");
        let [one, two, three] = ["1", "2", "3"].map(Some);
        assert_eq!(next(&[one, two], Cursor::START), Some(None));
        let id = Cursor::Id;
        assert_eq!(next(&[one, two, three], Cursor::START), Some(Some(id(2))));
        assert_eq!(next(&[one, two, three], id(0)), Some(Some(id(2))));
        for bad in [huge, None] {
            assert_eq!(next(&[one, bad, three], id(0)), None);
            assert_eq!(next(&[one, bad], id(0)), Some(None));
            let skip = Some(Some(Cursor::Skip(2)));
            assert_eq!(next(&[one, bad, three], Cursor::START), skip);
        }
    }
}
