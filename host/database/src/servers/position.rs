//! How far a server is: where its state stands in the history of the database.

use std::collections::BTreeMap;
use std::fmt;

/// A place in the history of a database. A server whose position is below that of rows already read would show an older state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// Galera: the cluster's UUID, and the number of its last write set that this node has committed.
    Galera {
        /// `wsrep_cluster_state_uuid`
        cluster: String,
        /// `wsrep_last_committed`
        last: u64,
    },
    /// MariaDB: the last sequence number of each replication domain (`gtid_current_pos`).
    MariaDb(BTreeMap<u64, u64>),
    /// MySQL: the transactions by the server or group that they began on, as ranges of numbers (`gtid_executed`).
    MySql(BTreeMap<String, Vec<(u64, u64)>>),
    /// PostgreSQL: the identity of the database cluster, and the position in its write-ahead log.
    Postgres {
        /// `system_identifier`
        system: String,
        /// The position in bytes.
        at: u64,
    },
}

/// How a position is to be seen after an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// It has everything that the earlier one has.
    Reached,
    /// It lacks some of it.
    Behind,
    /// It is of another history.
    Other,
}

impl Position {
    /// Reads MariaDB's form `DOMAIN-SERVER-NUMBER,…`; `None` if it is empty or has another form.
    pub(crate) fn of_mariadb(text: &str) -> Option<Self> {
        let mut last = BTreeMap::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let mut numbers = part.split('-').map(|number| number.parse::<u64>().ok());
            let (domain, _server, number) = (numbers.next()??, numbers.next()??, numbers.next()??);
            last.insert(domain, number);
        }
        (!last.is_empty()).then_some(Self::MariaDb(last))
    }

    /// Reads MySQL's form `UUID:FIRST-LAST:…,…`; `None` if it is empty or has another form. A tag is part of the name.
    pub(crate) fn of_mysql(text: &str) -> Option<Self> {
        let mut sets: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let mut parts = part.split(':').map(str::trim);
            let source = parts.next()?.to_owned();
            let mut name = source.clone();
            for part in parts {
                match range(part) {
                    Some(range) => sets.entry(name.clone()).or_default().push(range),
                    None => name = format!("{source}:{part}"),
                }
            }
        }
        (!sets.is_empty()).then_some(Self::MySql(sets))
    }

    /// Where this position is after an earlier one.
    pub(super) fn since(&self, before: &Self) -> Since {
        let is_reached = match (self, before) {
            (
                Self::Galera { cluster, last },
                Self::Galera {
                    cluster: known,
                    last: before,
                },
            ) => {
                if cluster != known {
                    return Since::Other;
                }
                last >= before
            }
            (Self::MariaDb(last), Self::MariaDb(before)) => before
                .iter()
                .all(|(domain, before)| last.get(domain).is_some_and(|last| last >= before)),
            (Self::MySql(sets), Self::MySql(before)) => before.iter().all(|(source, before)| {
                let has = sets.get(source).map(Vec::as_slice).unwrap_or_default();
                before.iter().all(|(first, last)| {
                    has.iter().any(|(begin, end)| begin <= first && last <= end)
                })
            }),
            (
                Self::Postgres { system, at },
                Self::Postgres {
                    system: known,
                    at: before,
                },
            ) => {
                if system != known {
                    return Since::Other;
                }
                at >= before
            }
            // The cluster was replaced by a single server, or the other way round.
            (
                Self::Galera { .. } | Self::MariaDb(_) | Self::MySql(_) | Self::Postgres { .. },
                Self::Galera { .. } | Self::MariaDb(_) | Self::MySql(_) | Self::Postgres { .. },
            ) => return Since::Other,
        };
        match is_reached {
            true => Since::Reached,
            false => Since::Behind,
        }
    }
}

/// `5` or `1-5`.
fn range(text: &str) -> Option<(u64, u64)> {
    match text.split_once('-') {
        Some((first, last)) => Some((first.parse().ok()?, last.parse().ok()?)),
        None => text.parse().ok().map(|one| (one, one)),
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Galera { cluster, last } => write!(f, "{cluster}:{last}"),
            Self::MariaDb(last) => {
                let parts = last
                    .iter()
                    .map(|(domain, number)| format!("{domain}-{number}"));
                write!(f, "GTID {}", parts.collect::<Vec<_>>().join(","))
            }
            Self::MySql(sets) => {
                let parts = sets.iter().map(|(source, ranges)| {
                    let last = ranges.iter().map(|(_, last)| *last).max().unwrap_or(0);
                    format!("{source}:{last}")
                });
                write!(f, "GTID {}", parts.collect::<Vec<_>>().join(","))
            }
            Self::Postgres { system, at } => {
                write!(f, "LSN {:X}/{:X} of {system}", at >> 32, at & 0xffff_ffff)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn galera(cluster: &str, last: u64) -> Position {
        Position::Galera {
            cluster: cluster.to_owned(),
            last,
        }
    }

    #[test]
    fn a_node_of_the_cluster_is_behind_or_not_and_another_cluster_is_another() {
        let before = galera("a", 7);
        assert_eq!(galera("a", 7).since(&before), Since::Reached);
        assert_eq!(galera("a", 8).since(&before), Since::Reached);
        assert_eq!(galera("a", 6).since(&before), Since::Behind);
        assert_eq!(galera("b", 9).since(&before), Since::Other);
        let single = Position::of_mariadb("0-1-9").unwrap();
        assert_eq!(single.since(&before), Since::Other);
    }

    #[test]
    fn a_replica_of_mariadb_needs_each_domain() {
        let of = |text: &str| Position::of_mariadb(text).unwrap();
        let before = of("0-1-100,2-7-5");
        assert_eq!(of("0-3-100,2-7-6").since(&before), Since::Reached);
        assert_eq!(of("2-7-5, 0-1-99").since(&before), Since::Behind);
        assert_eq!(of("0-1-400").since(&before), Since::Behind);
        assert_eq!(before.to_string(), "GTID 0-100,2-5");
        assert_eq!(Position::of_mariadb(""), None);
        assert_eq!(Position::of_mariadb("0-1"), None);
    }

    #[test]
    fn a_replica_of_mysql_needs_each_transaction() {
        let of = |text: &str| Position::of_mysql(text).unwrap();
        let (one, two) = (
            "3e11fa47-71ca-11e1-9e33-c80aa9429562",
            "aaaaaaaa-71ca-11e1-9e33-c80aa9429562",
        );
        let before = of(&format!("{one}:1-5:7-9,\n{two}:3"));
        let has = |text: String| of(&text).since(&before);
        assert_eq!(has(format!("{one}:1-20,{two}:1-3")), Since::Reached);
        assert_eq!(has(format!("{one}:1-5:7-8,{two}:1-3")), Since::Behind);
        assert_eq!(has(format!("{one}:1-20")), Since::Behind);
        let tagged = of(&format!("{one}:1-5:blue:1-2"));
        assert_eq!(of(&format!("{one}:1-5")).since(&tagged), Since::Behind);
        assert_eq!(
            of(&format!("{one}:1-5:blue:1-3")).since(&tagged),
            Since::Reached
        );
        assert_eq!(Position::of_mysql(""), None);
    }

    #[test]
    fn a_standby_of_postgres_has_a_place_in_the_log() {
        let of = |system: &str, at| Position::Postgres {
            system: system.to_owned(),
            at,
        };
        let before = of("71", 0x1_0000_0010);
        assert_eq!(of("71", 0x1_0000_0010).since(&before), Since::Reached);
        assert_eq!(of("71", 0x1_0000_000f).since(&before), Since::Behind);
        assert_eq!(of("72", 0x2_0000_0000).since(&before), Since::Other);
        assert_eq!(before.to_string(), "LSN 1/10 of 71");
    }
}
