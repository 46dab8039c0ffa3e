//! What PostgreSQL reports about a table.
//!
//! Two equal snapshots see the same rows of every table: nothing was committed between them. This is exact, and its cost does not depend on
//! the table, but any transaction on the server changes the snapshot. The counters of the table then reveal most changes; a session that
//! continues after its change may report to them seconds late, so a table is also read again and compared while others write to the server.

use std::collections::BTreeMap;

use super::look::{ChangeSource, Look};
use crate::link::{Column, Link};
use crate::{Failure, Name};

/// The result of a poll.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// `pg_class.relkind` of the table; `None` if there is no such table.
    kind: Option<String>,
    /// The OID of the table and that of its file, which changes with `TRUNCATE` and most forms of `ALTER TABLE`.
    id: Option<String>,
    /// Rows inserted, updated and deleted since the server has counted them.
    counters: Option<String>,
    /// `pg_current_snapshot()`: `xmin:xmax:` and the transactions in progress between them.
    snapshot: Option<String>,
    /// Whether the server is a standby. Its snapshots do not list the transactions in progress.
    is_standby: bool,
}

impl Seen {
    /// Queries all of it, for all of these tables at once. Every user who may connect may query it.
    pub(super) async fn ask(
        link: &mut Link,
        tables: &[Name],
    ) -> Result<BTreeMap<Name, Self>, Failure> {
        if tables.is_empty() {
            return Ok(BTreeMap::new());
        }
        let names = tables.iter().enumerate();
        let names = names.map(|(nth, table)| format!("({nth}, {})", table.literal()));
        let ask = format!(
            "SELECT CAST(asked.nth AS TEXT), CAST(c.relkind AS TEXT), CAST(c.oid AS TEXT) || '/' || CAST(c.relfilenode AS TEXT), \
             CONCAT_WS('/', pg_stat_get_tuples_inserted(c.oid), pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid)), \
             CAST(pg_current_snapshot() AS TEXT), CAST(pg_is_in_recovery() AS TEXT) \
             FROM (VALUES {}) AS asked(nth, name) LEFT JOIN pg_catalog.pg_class AS c \
             ON c.relname = CAST(asked.name AS NAME) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_catalog.pg_table_is_visible(c.oid)",
            names.collect::<Vec<_>>().join(", ")
        );
        let mut all = BTreeMap::new();
        link.each(&ask, |columns: [Column<'_>; 6]| {
            let [nth, kind, id, counters, snapshot, standby] = columns.map(|column| match column {
                Column::Text(text) => Some(text.to_owned()),
                Column::Null | Column::Bytes => None,
            });
            let nth: Option<usize> = nth.and_then(|nth| nth.parse().ok());
            let Some(table) = nth.and_then(|nth| tables.get(nth)) else {
                return;
            };
            let seen = Self {
                kind,
                id,
                counters,
                snapshot,
                is_standby: standby.as_deref() != Some("false"),
            };
            all.insert(table.clone(), seen);
        })
        .await?;
        Ok(all)
    }

    pub(super) fn since(&self, before: &Self) -> Look {
        let of = |seen: &Self| [&seen.kind, &seen.id, &seen.counters].map(Clone::clone);
        if of(self) != of(before) {
            return Look::Changed;
        }
        match self.is_told() && self.is_exact() && self.snapshot == before.snapshot {
            true => Look::Same,
            false => Look::Unknown,
        }
    }

    pub(super) fn source(&self) -> ChangeSource {
        match self.is_told() {
            true => ChangeSource::Snapshot,
            false => ChangeSource::Reread {
                why: "what a view or a foreign table shows need not be of this database".to_owned(),
            },
        }
    }

    /// Whether the rows are stored in this database, so that its transactions reveal changes.
    fn is_told(&self) -> bool {
        matches!(self.kind.as_deref(), None | Some("r" | "p" | "m"))
    }

    /// Whether the snapshot lists every transaction in progress.
    fn is_exact(&self) -> bool {
        let Some(snapshot) = &self.snapshot else {
            return false;
        };
        let mut parts = snapshot.split(':');
        !self.is_standby || parts.next() == parts.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(snapshot: &str) -> Seen {
        Seen {
            kind: Some("r".to_owned()),
            id: Some("16390/16390".to_owned()),
            counters: Some("3/0/1".to_owned()),
            snapshot: Some(snapshot.to_owned()),
            is_standby: false,
        }
    }

    #[test]
    fn equal_snapshots_are_equal_tables_and_others_say_nothing() {
        let before = seen("735:738:736");
        assert_eq!(before.since(&before), Look::Same);
        assert_eq!(seen("735:739:736").since(&before), Look::Unknown);
        assert_eq!(seen("737:738:").since(&before), Look::Unknown);
        let none = Seen {
            snapshot: None,
            ..before
        };
        assert_eq!(none.since(&none), Look::Unknown);
    }

    #[test]
    fn counters_and_files_tell_of_a_change() {
        let before = seen("735:735:");
        for changed in [
            Seen {
                counters: Some("4/0/1".to_owned()),
                ..before.clone()
            },
            Seen {
                id: Some("16390/16401".to_owned()),
                ..before.clone()
            },
            Seen::default(),
        ] {
            assert_eq!(changed.since(&before), Look::Changed);
            assert_eq!(before.since(&changed), Look::Changed);
        }
    }

    /// Between two of its transactions that are under way, one may end without a trace.
    #[test]
    fn a_standby_is_sure_only_while_nothing_is_under_way() {
        let standby = |snapshot: &str| Seen {
            is_standby: true,
            ..seen(snapshot)
        };
        let (busy, idle) = (standby("735:738:"), standby("738:738:"));
        assert_eq!(busy.since(&busy), Look::Unknown);
        assert_eq!(idle.since(&idle), Look::Same);
    }

    #[test]
    fn a_view_is_read_again() {
        let view = Seen {
            kind: Some("v".to_owned()),
            ..seen("735:735:")
        };
        assert_eq!(view.since(&view), Look::Unknown);
        assert!(view.source().to_string().starts_with("reading it again"));
        let said = seen("735:735:").source().to_string();
        assert_eq!(said, "pg_current_snapshot() and the counters of the table");
    }
}
