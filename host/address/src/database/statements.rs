//! Statements with the configured names of tables and columns, in the form of [`Dialect::statement`].

use portcullis_database::{AddressNames, Dialect, Name, RowStatements};

use super::filter::{Cursor, RowFilter};

/// The statements about the table of addresses.
#[derive(Clone, Copy)]
pub(super) struct AddressStatements<'s> {
    pub(super) names: &'s AddressNames,
    pub(super) dialect: &'static dyn Dialect,
}

impl<'s> AddressStatements<'s> {
    /// Those that each table has.
    pub(super) fn each(&self) -> RowStatements<'s, 5> {
        RowStatements {
            table: &self.names.table,
            id: &self.names.id,
            columns: self.names.columns(),
            dialect: self.dialect,
        }
    }

    pub(super) fn count(&self) -> String {
        format!("SELECT COUNT(*) FROM {}", self.names.table.quoted())
    }

    /// The number of rows that match.
    pub(super) fn count_of(&self, filter: &RowFilter) -> String {
        format!("{}{}", self.count(), self.condition(filter, None))
    }

    /// Selects rows that match, in the order of their ids, or, without ids, of the table. A row more than `most` shows that there are more.
    /// The values are those of [`RowFilter::values`] after the id, if `after` is one.
    pub(super) fn page(
        &self,
        filter: &RowFilter,
        after: Cursor,
        most: usize,
        has_id: bool,
    ) -> String {
        let as_text = |column: &Name| self.dialect.as_text(&column.quoted());
        let (id, order) = match has_id {
            true => (
                as_text(&self.names.id),
                // PostgreSQL would take a bare name for the column of the result, which is a text.
                format!(
                    " ORDER BY {}.{}",
                    self.names.table.quoted(),
                    self.names.id.quoted()
                ),
            ),
            false => (self.dialect.as_text("NULL"), String::new()),
        };
        let columns = self.names.columns().map(as_text).join(", ");
        let (condition, offset) = match after {
            Cursor::Id(_) => (self.condition(filter, Some(&self.names.id)), String::new()),
            Cursor::Skip(0) => (self.condition(filter, None), String::new()),
            Cursor::Skip(rows) => (self.condition(filter, None), format!(" OFFSET {rows}")),
        };
        let table = self.names.table.quoted();
        let limit = most + 1;
        format!("SELECT {id}, {columns} FROM {table}{condition}{order} LIMIT {limit}{offset}")
    }

    /// Selects a number for a row without an id.
    pub(super) fn null_id(&self) -> String {
        let (id, table) = (self.names.id.quoted(), self.names.table.quoted());
        format!("SELECT 1 FROM {table} WHERE {id} IS NULL LIMIT 1")
    }

    /// The rows that match, and, with an id, come after it.
    fn condition(&self, filter: &RowFilter, id: Option<&Name>) -> String {
        let id = id.map(|id| format!("{} > ?", id.quoted()));
        let groups = filter.groups.as_deref().map(|groups| match groups {
            [] => "1 = 0".to_owned(),
            groups => {
                let groups: Vec<_> = groups.iter().map(i64::to_string).collect();
                format!("{} IN ({})", self.names.group.quoted(), groups.join(", "))
            }
        });
        let contains = filter.contains.as_ref().map(|_| {
            let columns = [&self.names.ip_addr, &self.names.tag];
            let [ip_addr, tag] = columns.map(|column| self.dialect.contains(column));
            format!("({ip_addr} OR {tag})")
        });
        let all: Vec<_> = [id, groups, contains].into_iter().flatten().collect();
        match all.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", all.join(" AND ")),
        }
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
            statements.each().rows(true),
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
            statements.each().rows(false),
            "SELECT NULL, CAST(`customer` AS TEXT), CAST(`ip_addr` AS TEXT), CAST(`mask` AS TEXT), CAST(`port` AS TEXT), \
             CAST(`tag` AS TEXT) FROM `trunks`"
        );
        assert_eq!(
            statements.each().insert(2),
            "INSERT INTO `trunks` (`customer`, `ip_addr`, `mask`, `port`, `tag`) VALUES (?, ?, ?, ?, ?), (?, ?, ?, ?, ?)"
        );
        let filter = RowFilter {
            groups: Some(vec![200, 201]),
            contains: Some("x".to_owned()),
        };
        assert_eq!(
            statements.page(&filter, Cursor::Skip(20), 10, false),
            "SELECT CAST(NULL AS TEXT), CAST(`customer` AS TEXT), CAST(`ip_addr` AS TEXT), CAST(`mask` AS TEXT), CAST(`port` AS TEXT), \
             CAST(`tag` AS TEXT) FROM `trunks` WHERE `customer` IN (200, 201) AND (instr(CAST(`ip_addr` AS TEXT), ?) > 0 OR \
             instr(CAST(`tag` AS TEXT), ?) > 0) LIMIT 11 OFFSET 20"
        );
        let filter = RowFilter {
            contains: None,
            ..filter
        };
        assert!(statements.page(&filter, Cursor::Id(7), 10, true).ends_with(
            " FROM `trunks` WHERE `id` > ? AND `customer` IN (200, 201) ORDER BY `trunks`.`id` LIMIT 11"
        ));
        assert_eq!(
            statements.delete(),
            "DELETE FROM `trunks` WHERE `customer` = ? AND `ip_addr` = ?"
        );
    }
}
