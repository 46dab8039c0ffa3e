//! Statements with the configured names of tables and columns, in the form of [`Dialect::statement`].

use portcullis_database::{AddressNames, Dialect, Name};

/// The statements about the table of addresses.
#[derive(Clone, Copy)]
pub(super) struct AddressStatements<'s> {
    pub(super) names: &'s AddressNames,
    pub(super) dialect: &'static dyn Dialect,
}

impl AddressStatements<'_> {
    /// Selects the rows in the order of the table itself, as Kamailio does: no WHERE, no ORDER BY. Without an id the first column is NULL.
    pub(super) fn rows(&self, has_id: bool) -> String {
        let id = match has_id {
            true => self.dialect.text(&self.names.id),
            false => "NULL".to_owned(),
        };
        let columns = self
            .names
            .columns()
            .map(|column| self.dialect.text(column))
            .join(", ");
        format!("SELECT {id}, {columns} FROM {}", self.names.table.quoted())
    }

    /// Fails if the table has no id.
    pub(super) fn probe_id(&self) -> String {
        format!(
            "SELECT {} FROM {} LIMIT 0",
            self.names.id.quoted(),
            self.names.table.quoted()
        )
    }

    pub(super) fn count(&self) -> String {
        format!("SELECT COUNT(*) FROM {}", self.names.table.quoted())
    }

    /// Inserts this many rows; the statement has a parameter for each of [`columns`](Self::columns) of each row.
    pub(super) fn insert(&self, rows: usize) -> String {
        let columns = self.names.columns().map(Name::quoted).join(", ");
        let values = vec!["(?, ?, ?, ?, ?)"; rows].join(", ");
        format!(
            "INSERT INTO {} ({columns}) VALUES {values}",
            self.names.table.quoted()
        )
    }

    /// Deletes all rows of a group and an address.
    pub(super) fn delete(&self) -> String {
        format!(
            "DELETE FROM {} WHERE {} = ? AND {} = ?",
            self.names.table.quoted(),
            self.names.group.quoted(),
            self.names.ip_addr.quoted()
        )
    }

    /// Deletes all rows of a group and a network: with its address and mask, or with its CIDR form as the address.
    pub(super) fn delete_network(&self) -> String {
        format!(
            "DELETE FROM {} WHERE {} = ? AND (({} = ? AND {} = ?) OR {} = ?)",
            self.names.table.quoted(),
            self.names.group.quoted(),
            self.names.ip_addr.quoted(),
            self.names.mask.quoted(),
            self.names.ip_addr.quoted(),
        )
    }

    /// Deletes all rows.
    pub(super) fn delete_all(&self) -> String {
        format!("DELETE FROM {}", self.names.table.quoted())
    }
}

#[cfg(test)]
mod tests {
    use portcullis_database::{Connections, DatabaseUrl};

    use super::*;

    #[test]
    fn statements_are_those_of_kamailio_with_the_configured_names() {
        let dialect = |url: &str| Connections::new(url.parse::<DatabaseUrl>().unwrap()).dialect();
        let names = AddressNames::default();
        let statements = AddressStatements {
            names: &names,
            dialect: dialect("mysql://a@h/k"),
        };
        assert_eq!(
            statements.rows(true),
            "SELECT `id`, `grp`, `ip_addr`, `mask`, `port`, `tag` FROM `address`"
        );
        let names = AddressNames {
            table: Name::known("trunks"),
            group: Name::known("customer"),
            ..names
        };
        let statements = AddressStatements {
            names: &names,
            dialect: dialect("sqlite:a.db"),
        };
        assert_eq!(
            statements.rows(false),
            "SELECT NULL, CAST(`customer` AS TEXT), CAST(`ip_addr` AS TEXT), CAST(`mask` AS TEXT), CAST(`port` AS TEXT), \
             CAST(`tag` AS TEXT) FROM `trunks`"
        );
        assert_eq!(
            statements.insert(2),
            "INSERT INTO `trunks` (`customer`, `ip_addr`, `mask`, `port`, `tag`) VALUES (?, ?, ?, ?, ?), (?, ?, ?, ?, ?)"
        );
        assert_eq!(
            statements.delete(),
            "DELETE FROM `trunks` WHERE `customer` = ? AND `ip_addr` = ?"
        );
    }
}
