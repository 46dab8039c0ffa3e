//! The statements about single rows, the same for each of Kamailio's tables.

use crate::dialect::{Dialect, LastId};
use crate::failure::Failure;
use crate::link::{Link, Value};
use crate::schema::Name;
use crate::text_row::TextRow;
use crate::unchanged::Unchanged;

/// The column that identifies a row where its name is not configurable.
pub static ROW_ID: Name = Name::known("id");

/// The statements about the rows of a table, in the form of [`Dialect::statement`].
#[derive(Clone, Copy, Debug)]
pub struct RowStatements<'s, const COLUMNS: usize> {
    /// The table.
    pub table: &'s Name,
    /// The column that identifies a row.
    pub id: &'s Name,
    /// The columns that Kamailio reads, in its order.
    pub columns: [&'s Name; COLUMNS],
    /// The SQL of the database.
    pub dialect: &'static dyn Dialect,
}

impl<const COLUMNS: usize> RowStatements<'_, COLUMNS> {
    /// Selects the rows in the order of the table itself, as Kamailio does: no WHERE, no ORDER BY. Each column is a text. Without an id the first
    /// column is NULL.
    pub fn rows(&self, has_id: bool) -> String {
        let id = match has_id {
            true => self.dialect.text(self.id),
            false => "NULL".to_owned(),
        };
        let columns = self.columns.map(|column| self.dialect.text(column));
        let (columns, table) = (columns.join(", "), self.table.quoted());
        format!("SELECT {id}, {columns} FROM {table}")
    }

    /// Fails if the table has no id.
    pub fn probe_id(&self) -> String {
        let (id, table) = (self.id.quoted(), self.table.quoted());
        format!("SELECT {id} FROM {table} LIMIT 0")
    }

    /// Whether the rows have ids. A view may lack them.
    ///
    /// Must be called outside a transaction, which a failing statement would end on some databases.
    ///
    /// # Errors
    /// When the database fails, or has no such table.
    pub async fn has_id(&self, link: &mut Link) -> Result<bool, Failure> {
        match link.run(&self.probe_id()).await {
            Ok(_) => Ok(true),
            Err(Failure::NoColumn { .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// The rows with an id as they are stored, the id first: one, or two if ids are not unique. `ALL` is `COLUMNS + 1`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn stored<const ALL: usize>(
        &self,
        link: &mut Link,
        id: i64,
    ) -> Result<Vec<[Option<String>; ALL]>, Failure> {
        let (one, values) = (self.one(), [id.into()]);
        let rows = link.rows(&one, &values, |row| {
            let columns = std::array::from_fn(|at| row.column(at));
            Ok(TextRow::new(columns, 0).stored())
        });
        rows.await
    }

    /// Selects the rows with an id, all columns as text.
    pub fn one(&self) -> String {
        let as_text = |column: &Name| self.dialect.as_text(&column.quoted());
        let columns = self.columns.map(as_text).join(", ");
        let (id, table) = (as_text(self.id), self.table.quoted());
        let condition = self.id.quoted();
        // A second one shows that the ids are not unique.
        format!("SELECT {id}, {columns} FROM {table} WHERE {condition} = ? LIMIT 2")
    }

    /// Inserts this many rows; the statement has a parameter for each column of each row.
    pub fn insert(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; COLUMNS].join(", "));
        let (values, table) = (vec![row; rows].join(", "), self.table.quoted());
        let columns = self.columns.map(Name::quoted).join(", ");
        format!("INSERT INTO {table} ({columns}) VALUES {values}")
    }

    /// Inserts a row with an id, unless a row with that id exists.
    pub(crate) fn insert_as(&self) -> String {
        let (id, table) = (self.id.quoted(), self.table.quoted());
        let columns = self.columns.map(Name::quoted).join(", ");
        let values = vec!["?"; COLUMNS + 1].join(", ");
        self.dialect
            .insert_if_absent(&format!("{table} ({id}, {columns}) VALUES ({values})"))
    }

    /// Inserts a row, and returns the id that the table has given it; `None` if rows have no ids (`has_id`), or the table gives none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_one(
        &self,
        link: &mut Link,
        has_id: bool,
        values: &[Value<'_>],
    ) -> Result<Option<i64>, Failure> {
        let insert = self.insert(1);
        if !has_id {
            link.execute(&insert, values).await?;
            return Ok(None);
        }
        let Some(LastId { forget, ask }) = self.dialect.last_id() else {
            let id = self.dialect.as_text(&self.id.quoted());
            let insert = format!("{insert} RETURNING {id}");
            let given = link.row(&insert, values, |row| row.text(0)).await?;
            return Ok(given.flatten().and_then(|id| id.parse().ok()));
        };
        link.rows(forget, &[], |_| Ok(())).await?;
        link.execute(&insert, values).await?;
        let given = link.row(ask, &[], |row| row.integer(0)).await?;
        Ok(given.flatten().filter(|&id| id > 0))
    }

    /// Deletes the row with an id if its columns still have these values. Returns the statement with its values.
    pub fn delete_one<'v>(
        &self,
        id: i64,
        read: [&'v Option<String>; COLUMNS],
    ) -> (String, Vec<Value<'v>>) {
        let Unchanged { condition, values } = self.unchanged(read);
        let (column, table) = (self.id.quoted(), self.table.quoted());
        let delete = format!("DELETE FROM {table} WHERE {column} = ?{condition}");
        (delete, [id.into()].into_iter().chain(values).collect())
    }

    /// Replaces the columns of the row with an id by new values, if they still have those that were read. Returns the statement with its values.
    pub fn replace_one<'v>(
        &self,
        id: i64,
        read: [&'v Option<String>; COLUMNS],
        new: [Value<'v>; COLUMNS],
    ) -> (String, Vec<Value<'v>>) {
        let Unchanged { condition, values } = self.unchanged(read);
        let set = self
            .columns
            .map(|column| format!("{} = ?", column.quoted()));
        let (column, table) = (self.id.quoted(), self.table.quoted());
        let set = set.join(", ");
        let update = format!("UPDATE {table} SET {set} WHERE {column} = ?{condition}");
        let values = new.into_iter().chain([id.into()]).chain(values);
        (update, values.collect())
    }

    fn unchanged<'v>(&self, read: [&'v Option<String>; COLUMNS]) -> Unchanged<'v> {
        Unchanged::of(self.dialect, self.columns.into_iter().zip(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Connections, DatabaseUrl};

    #[test]
    fn statements_have_the_names_of_table_and_columns() {
        let (table, one, two) = (
            Name::known("gateways"),
            Name::known("set"),
            Name::known("uri"),
        );
        let dialect = |url: &str| Connections::new(url.parse::<DatabaseUrl>().unwrap()).dialect();
        let statements = RowStatements {
            table: &table,
            id: &ROW_ID,
            columns: [&one, &two],
            dialect: dialect("mysql://a@h/k"),
        };
        assert_eq!(
            statements.rows(true),
            "SELECT `id`, `set`, `uri` FROM `gateways`"
        );
        assert_eq!(statements.probe_id(), "SELECT `id` FROM `gateways` LIMIT 0");
        assert_eq!(
            statements.insert(2),
            "INSERT INTO `gateways` (`set`, `uri`) VALUES (?, ?), (?, ?)"
        );
        assert_eq!(
            statements.insert_as(),
            "INSERT IGNORE INTO `gateways` (`id`, `set`, `uri`) VALUES (?, ?, ?)"
        );
        let lite = RowStatements {
            dialect: dialect("sqlite:a.db"),
            ..statements
        };
        assert_eq!(
            lite.rows(false),
            "SELECT NULL, CAST(`set` AS TEXT), CAST(`uri` AS TEXT) FROM `gateways`"
        );
        assert_eq!(
            lite.one(),
            "SELECT CAST(`id` AS TEXT), CAST(`set` AS TEXT), CAST(`uri` AS TEXT) FROM `gateways` WHERE `id` = ? LIMIT 2"
        );
        let (known, null) = (Some("1".to_owned()), None);
        let (delete, values) = lite.delete_one(7, [&known, &null]);
        assert_eq!(
            delete,
            "DELETE FROM `gateways` WHERE `id` = ? AND CAST(`set` AS TEXT) = ? AND `uri` IS NULL"
        );
        assert_eq!(values.len(), 2);
        let new = [Value::from(2_i64), Value::from(&known)];
        let (update, values) = lite.replace_one(7, [&known, &null], new);
        assert_eq!(
            update,
            "UPDATE `gateways` SET `set` = ?, `uri` = ? WHERE `id` = ? AND CAST(`set` AS TEXT) = ? AND `uri` IS NULL"
        );
        assert_eq!(values.len(), 4);
    }
}
