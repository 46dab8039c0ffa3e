//! The statements, made from the names of tables and columns.

use sqlx::AssertSqlSafe;

use super::schema::{AddressNames, Name, Schema};

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    MySql,
    Sqlite,
}

impl Engine {
    /// A column, asked for as text. MySQL answers a statement that was not prepared with text, whatever the type of the column is.
    pub(super) fn text(self, column: &Name) -> String {
        match self {
            Self::MySql => column.quoted(),
            Self::Sqlite => format!("CAST({} AS TEXT)", column.quoted()),
        }
    }
}

impl Schema {
    /// The version of a table.
    pub(super) fn version_of(&self, table: &Name, engine: Engine) -> AssertSqlSafe<String> {
        let version = engine.text(&Name::known("table_version"));
        AssertSqlSafe(format!(
            "SELECT {version} FROM {} WHERE table_name = {}",
            self.version_table.quoted(),
            table.literal()
        ))
    }
}

impl AddressNames {
    /// The rows in the order of the table itself, as Kamailio asks for them: no WHERE, no ORDER BY. Without an id the first column
    /// is NULL.
    pub(super) fn rows(&self, engine: Engine, has_id: bool) -> AssertSqlSafe<String> {
        let id = match has_id {
            true => engine.text(&self.id),
            false => "NULL".to_owned(),
        };
        let columns = self.columns().map(|column| engine.text(column)).join(", ");
        AssertSqlSafe(format!(
            "SELECT {id}, {columns} FROM {}",
            self.table.quoted()
        ))
    }

    /// Fails when the table has no id.
    pub(super) fn probe_id(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!(
            "SELECT {} FROM {} LIMIT 0",
            self.id.quoted(),
            self.table.quoted()
        ))
    }

    pub(super) fn count(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!("SELECT COUNT(*) FROM {}", self.table.quoted()))
    }

    /// For so many rows, each with a parameter for each of [`columns`](Self::columns).
    pub(super) fn insert(&self, rows: usize) -> AssertSqlSafe<String> {
        let columns = self.columns().map(Name::quoted).join(", ");
        let values = vec!["(?, ?, ?, ?, ?)"; rows].join(", ");
        AssertSqlSafe(format!(
            "INSERT INTO {} ({columns}) VALUES {values}",
            self.table.quoted()
        ))
    }

    /// All rows of a group and an address.
    pub(super) fn delete(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!(
            "DELETE FROM {} WHERE {} = ? AND {} = ?",
            self.table.quoted(),
            self.group.quoted(),
            self.ip_addr.quoted()
        ))
    }

    /// All rows.
    pub(super) fn delete_all(&self) -> String {
        format!("DELETE FROM {}", self.table.quoted())
    }

    /// MySQL: nobody else reads or writes the table.
    pub(super) fn lock(&self) -> String {
        format!("LOCK TABLES {} WRITE", self.table.quoted())
    }

    /// MySQL: "YES" or "NO".
    pub(super) fn transactions(&self) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!(
            "SELECT CAST(TRANSACTIONS AS CHAR) FROM information_schema.TABLES \
             JOIN information_schema.ENGINES USING (ENGINE) \
             WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}",
            self.table.literal()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_kamailios_with_the_names_given() {
        let names = AddressNames::default();
        assert_eq!(
            names.rows(Engine::MySql, true).0,
            "SELECT `id`, `grp`, `ip_addr`, `mask`, `port`, `tag` FROM `address`"
        );
        let names = AddressNames {
            table: Name::known("trunks"),
            group: Name::known("customer"),
            ..names
        };
        assert_eq!(
            names.rows(Engine::Sqlite, false).0,
            "SELECT NULL, CAST(`customer` AS TEXT), CAST(`ip_addr` AS TEXT), CAST(`mask` AS TEXT), CAST(`port` AS TEXT), \
             CAST(`tag` AS TEXT) FROM `trunks`"
        );
        assert_eq!(
            names.insert(2).0,
            "INSERT INTO `trunks` (`customer`, `ip_addr`, `mask`, `port`, `tag`) VALUES (?, ?, ?, ?, ?), (?, ?, ?, ?, ?)"
        );
        assert_eq!(
            names.delete().0,
            "DELETE FROM `trunks` WHERE `customer` = ? AND `ip_addr` = ?"
        );
        assert_eq!(
            Schema::default().version_of(&names.table, Engine::MySql).0,
            "SELECT `table_version` FROM `version` WHERE table_name = 'trunks'"
        );
    }
}
