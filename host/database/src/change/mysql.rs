//! What MySQL and MariaDB report about a table.

use std::collections::BTreeMap;

use super::look::{ChangeSource, Look};
use crate::kind::Kind;
use crate::link::{Column, Link};
use crate::{Failure, Name};

/// MySQL 8 caches these times for up to a day by default. Other servers do not know the variable.
const FRESH_TIMES: &str = "SET SESSION information_schema_stats_expiry = 0";

/// Times have whole seconds, and are set slightly before a change becomes visible. A poll this long after the start of a second has seen
/// all changes of that second. In seconds.
const SETTLED: f64 = 1.25;

/// Ages of a change, in seconds, at which the table is read again on a node of Galera. A commit waits there while the cluster excludes a node that
/// does not answer (`evs.inactive_timeout`, 15 s by default), and the time of the change is that of the statement.
const LATE: [f64; 5] = [2.5, 5.0, 10.0, 20.0, 40.0];

/// Engines that update the time of a change immediately, and how durable it is. Aria updates it up to half a minute late.
const TIMED: [(&str, Memory); 2] = [("InnoDB", Memory::Lost), ("MyISAM", Memory::Kept)];

/// The server's information on a table; empty if there is no such table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Times {
    /// A table or a view.
    pub(super) kind: Option<String>,
    pub(super) engine: Option<String>,
    /// Times of creation and of the last change, in whole seconds.
    pub(super) created: Option<String>,
    pub(super) updated: Option<String>,
    /// Other values that may change with the table, above all when InnoDB truncates it, which changes neither time: the next auto-increment
    /// value, whether there are rows (InnoDB only estimates their number), and the checksum of MyISAM and Aria, if enabled.
    pub(super) signs: Option<String>,
    /// Age of that time at the poll, in seconds.
    pub(super) age: f64,
    /// Whether the server is a node of Galera.
    pub(super) is_galera: bool,
}

/// What happens to the time of the last change at a restart of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Kept,
    Lost,
}

impl Times {
    /// Queries all of it, for all of these tables at once.
    pub(super) async fn ask(
        link: &mut Link,
        tables: &[Name],
    ) -> Result<BTreeMap<Name, Self>, Failure> {
        if tables.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut found: Vec<(String, Self)> = Vec::new();
        link.try_once(FRESH_TIMES).await?;
        let is_galera = link.origin.kind == Some(Kind::Galera);
        let names: Vec<String> = tables.iter().map(Name::literal).collect();
        let ask = format!(
            "SELECT CAST(TABLE_NAME AS CHAR), CONCAT(TABLE_TYPE, IF(CREATE_OPTIONS LIKE '%partitioned%', ' PARTITIONED', '')), \
             CAST(ENGINE AS CHAR), CAST(CREATE_TIME AS CHAR), CAST(UPDATE_TIME AS CHAR), \
             CAST(TIMESTAMPDIFF(MICROSECOND, UPDATE_TIME, NOW(6)) / 1000000 AS CHAR), \
             CONCAT_WS('/', AUTO_INCREMENT, IF(ENGINE = 'InnoDB', TABLE_ROWS = 0, TABLE_ROWS), CHECKSUM) \
             FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({})",
            names.join(", ")
        );
        link.each(&ask, |columns: [Column<'_>; 7]| {
            let [name, kind, engine, created, updated, age, signs] =
                columns.map(|column| match column {
                    Column::Text(text) => Some(text.to_owned()),
                    Column::Null | Column::Bytes => None,
                });
            let times = Self {
                kind,
                engine,
                created,
                updated,
                signs,
                age: age
                    .and_then(|age| age.parse().ok())
                    .unwrap_or(f64::INFINITY),
                is_galera,
            };
            found.push((name.unwrap_or_default(), times));
        })
        .await?;
        let of = |table: &Name| (table.clone(), Self::of(table, &found));
        Ok(tables.iter().map(of).collect())
    }

    /// The answer about a table among those of a server, which may not distinguish upper and lower case in names, or have them in lower case.
    fn of(table: &Name, found: &[(String, Self)]) -> Self {
        let name = table.as_str();
        let exact = found.iter().find(|(found, _)| found == name);
        let similar = || {
            let mut all = found.iter();
            all.find(|(found, _)| found.to_lowercase() == name.to_lowercase())
        };
        let times = exact.or_else(similar).map(|(_, times)| times.clone());
        times.unwrap_or_default()
    }

    pub(super) fn since(&self, before: &Self) -> Look {
        let of = |times: &Self| {
            let Self {
                kind,
                engine,
                created,
                updated,
                signs,
                age: _,
                is_galera: _,
            } = times;
            [kind, engine, created, updated, signs].map(Clone::clone)
        };
        if of(self) != of(before) {
            return Look::Changed;
        }
        match (self.memory(), &self.updated) {
            (None, _) | (Some(Memory::Kept), None) => Look::Unknown,
            (Some(Memory::Lost), None) => Look::Quiet,
            // The second of the last change was not over yet: there may have been another change in it.
            (Some(_), Some(_)) if before.age < SETTLED => Look::Changed,
            (Some(_), Some(_)) if self.is_galera && late(before.age) != late(self.age) => {
                Look::Changed
            }
            (Some(_), Some(_)) => Look::Same,
        }
    }

    /// The durability of the time of a change; `None` if the time is not reliable.
    fn memory(&self) -> Option<Memory> {
        // Truncating a partition leaves no trace.
        if self.kind.as_ref()?.ends_with("PARTITIONED") {
            return None;
        }
        let engine = self.engine.as_deref()?;
        let (_, memory) = TIMED.iter().find(|(timed, _)| *timed == engine)?;
        Some(*memory)
    }

    pub(super) fn source(&self) -> ChangeSource {
        let why = match (&self.kind, &self.engine) {
            (_, Some(engine)) if self.memory().is_some() => {
                let engine = engine.clone();
                return ChangeSource::UpdateTime { engine };
            }
            (None, _) => "there is no such table".to_owned(),
            (Some(kind), _) if kind.contains("VIEW") => {
                "the server knows no time of change for a view".to_owned()
            }
            (Some(kind), _) if kind.ends_with("PARTITIONED") => {
                "the server does not tell when a part of the table is truncated".to_owned()
            }
            (Some(_), None) => "the server does not tell its engine".to_owned(),
            (Some(_), Some(engine)) => format!("{engine} tells of changes late or not at all"),
        };
        ChangeSource::Reread { why }
    }
}

/// How many of the ages in [`LATE`] a change has reached.
fn late(age: f64) -> usize {
    LATE.iter().filter(|late| age >= **late).count()
}

impl Default for Times {
    /// There is no such table.
    fn default() -> Self {
        Self {
            kind: None,
            engine: None,
            created: None,
            updated: None,
            signs: None,
            age: f64::INFINITY,
            is_galera: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(engine: &str, updated: Option<&str>, age: f64) -> Times {
        Times {
            kind: Some("BASE TABLE".to_owned()),
            engine: Some(engine.to_owned()),
            created: Some("2026-01-01 00:00:00".to_owned()),
            updated: updated.map(str::to_owned),
            signs: Some("4/0".to_owned()),
            age,
            is_galera: false,
        }
    }

    fn times(updated: Option<&str>, age: f64) -> Times {
        table("InnoDB", updated, age)
    }

    #[test]
    fn a_change_within_the_second_of_the_last_look_is_not_missed() {
        let fresh = times(Some("12:00:07"), 0.2);
        let still_fresh = times(Some("12:00:07"), 1.2);
        let settled = times(Some("12:00:07"), 2.2);
        assert_eq!(still_fresh.since(&fresh), Look::Changed);
        assert_eq!(settled.since(&still_fresh), Look::Changed);
        assert_eq!(settled.since(&settled), Look::Same);
        assert_eq!(times(Some("12:00:09"), 0.5).since(&settled), Look::Changed);
        assert_eq!(
            times(Some("11:00:00"), 9e9).since(&settled),
            Look::Changed,
            "clocks go back"
        );
    }

    #[test]
    fn a_commit_that_waits_for_a_cluster_is_not_missed() {
        let at = |age| Times {
            is_galera: true,
            ..times(Some("12:00:07"), age)
        };
        for (before, now, look) in [
            (1.5, 2.0, Look::Same),
            (2.0, 2.6, Look::Changed),
            (2.6, 4.9, Look::Same),
            (4.9, 5.1, Look::Changed),
            (6.0, 25.0, Look::Changed),
            (41.0, 99.0, Look::Same),
        ] {
            assert_eq!(at(now).since(&at(before)), look, "{before} {now}");
        }
    }

    #[test]
    fn an_answer_belongs_to_the_table_with_this_name_or_to_the_one_in_lower_case() {
        let at = |second| times(Some(second), 9.0);
        let found = [
            ("Address".to_owned(), at("12:00:01")),
            ("address".to_owned(), at("12:00:02")),
            ("peers".to_owned(), at("12:00:03")),
        ];
        let of = |name: &'static str| Times::of(&Name::known(name), &found);
        assert_eq!(of("address"), at("12:00:02"));
        assert_eq!(of("Address"), at("12:00:01"));
        assert_eq!(of("Peers"), at("12:00:03"));
        assert_eq!(of("trusted"), Times::default());
    }

    #[test]
    fn a_table_that_was_truncated_has_changed() {
        let before = times(Some("12:00:07"), 99.0);
        let times = Times {
            signs: Some("1/1".to_owned()),
            ..before.clone()
        };
        assert_eq!(times.since(&before), Look::Changed);
    }

    #[test]
    fn a_server_without_times_is_read_rarely_unless_it_never_has_them() {
        let none = times(None, f64::INFINITY);
        assert_eq!(none.since(&none), Look::Quiet);
        assert_eq!(
            none.since(&times(Some("12:00:07"), 99.0)),
            Look::Changed,
            "it was restarted"
        );
        assert_eq!(times(Some("12:00:07"), 99.0).since(&none), Look::Changed);
        let absent = Times::default();
        assert_eq!(none.since(&absent), Look::Changed, "the table was made");
        assert_eq!(absent.since(&absent), Look::Unknown);
        let other = table("CSV", Some("12:00:07"), 99.0);
        assert_eq!(other.since(&other), Look::Unknown, "no engine that we know");
        let file = table("MyISAM", None, f64::INFINITY);
        assert_eq!(file.since(&file), Look::Unknown);
    }

    #[test]
    fn what_tells_of_changes_is_told() {
        let said = |times: &Times| times.source().to_string();
        assert_eq!(said(&times(None, 1.0)), "UPDATE_TIME of the InnoDB table");
        assert_eq!(
            said(&table("CSV", None, 1.0)),
            "reading it again (CSV tells of changes late or not at all)"
        );
        let view = Times {
            kind: Some("VIEW".to_owned()),
            engine: None,
            created: None,
            updated: None,
            signs: None,
            age: 1.0,
            is_galera: false,
        };
        assert_eq!(
            said(&view),
            "reading it again (the server knows no time of change for a view)"
        );
    }
}
