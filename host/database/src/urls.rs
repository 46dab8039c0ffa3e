//! The servers of one database.

use std::fmt;
use std::path::Path;

use thiserror::Error;

use crate::DatabaseUrl;

/// Where a database is: one server or file, or the servers of a cluster in the order in which they are preferred. All of them are of one kind
/// and have the same database. Displayed without passwords and options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseUrls {
    /// Never empty.
    all: Vec<DatabaseUrl>,
}

/// Why URLs are not those of one database.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UrlsError {
    /// There is none.
    #[error("the list is empty; write one URL, or one for each server of the cluster")]
    None,
    /// A file has no servers.
    #[error(
        "entry {entry} is the SQLite file {url}, and a list is for the servers of a cluster; write url = \"sqlite:FILE\" without a list, or remove the entry"
    )]
    File {
        /// The place in the list, from 1.
        entry: usize,
        /// The entry.
        url: String,
    },
    /// A server of another kind.
    #[error(
        "entry {entry} ({url}) is a server of another kind than entry 1 ({first}), and the servers of a cluster are of one kind; correct or remove the entry"
    )]
    Kind {
        /// The place in the list, from 1.
        entry: usize,
        /// The entry.
        url: String,
        /// The first entry.
        first: String,
    },
    /// Another database.
    #[error(
        "entry {entry} ({url}) has another database than entry 1 ({first}), and the servers of a cluster have the same; correct or remove the entry"
    )]
    Database {
        /// The place in the list, from 1.
        entry: usize,
        /// The entry.
        url: String,
        /// The first entry.
        first: String,
    },
    /// A server occurs twice.
    #[error("entry {entry} ({url}) is the same server as entry {other}; remove one of them")]
    Twice {
        /// The place in the list, from 1.
        entry: usize,
        /// The entry.
        url: String,
        /// The place of the same server.
        other: usize,
    },
    /// More servers than anyone has.
    #[error("there are {count} entries, and at most {MOST} are used; remove some")]
    TooMany {
        /// Their number.
        count: usize,
    },
}

/// Most servers of a cluster.
const MOST: usize = 16;

impl DatabaseUrls {
    /// The servers of a cluster, or the only server or file.
    ///
    /// # Errors
    /// When the URLs are not those of one database. The error names the entry.
    pub fn new(all: Vec<DatabaseUrl>) -> Result<Self, UrlsError> {
        let Some(first) = all.first() else {
            return Err(UrlsError::None);
        };
        if all.len() > MOST {
            return Err(UrlsError::TooMany { count: all.len() });
        }
        for (at, url) in all.iter().enumerate() {
            let (entry, shown) = (at + 1, url.to_string());
            if url.file().is_some() && all.len() > 1 {
                return Err(UrlsError::File { entry, url: shown });
            }
            let first_shown = || first.to_string();
            match (first, url) {
                (DatabaseUrl::MySql(one), DatabaseUrl::MySql(other))
                | (DatabaseUrl::Postgres(one), DatabaseUrl::Postgres(other)) => {
                    if one.database != other.database {
                        return Err(UrlsError::Database {
                            entry,
                            url: shown,
                            first: first_shown(),
                        });
                    }
                }
                (DatabaseUrl::Sqlite(_), DatabaseUrl::Sqlite(_)) => {}
                (
                    DatabaseUrl::MySql(_) | DatabaseUrl::Postgres(_) | DatabaseUrl::Sqlite(_),
                    DatabaseUrl::MySql(_) | DatabaseUrl::Postgres(_) | DatabaseUrl::Sqlite(_),
                ) => {
                    return Err(UrlsError::Kind {
                        entry,
                        url: shown,
                        first: first_shown(),
                    });
                }
            }
            let same = all[..at].iter().position(|other| is_same(other, url));
            if let Some(other) = same {
                return Err(UrlsError::Twice {
                    entry,
                    url: shown,
                    other: other + 1,
                });
            }
        }
        Ok(Self { all })
    }

    /// The servers, in the order in which they are preferred; never empty.
    pub fn all(&self) -> &[DatabaseUrl] {
        &self.all
    }

    /// The server that is preferred most, or the only one.
    pub fn first(&self) -> &DatabaseUrl {
        // The list is never empty.
        &self.all[0]
    }

    /// Whether there are several servers.
    pub fn is_cluster(&self) -> bool {
        self.all.len() > 1
    }

    /// The file, if the database is one.
    pub fn file(&self) -> Option<&Path> {
        self.first().file()
    }

    /// The same servers, beginning with the one that the name of a host chooses: hosts with different names spread over the servers, and a
    /// host prefers the same server after each restart.
    #[must_use]
    pub fn spread(mut self, host: &str) -> Self {
        // FNV-1a: the result is the same on all machines and in all versions.
        let hash = host.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        // The low bits of similar names are similar.
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let count = self.all.len() as u64;
        let begin = usize::try_from(mixed % count).unwrap_or(0);
        self.all.rotate_left(begin);
        self
    }
}

/// Whether two URLs lead to the same server: user, password and options may differ.
fn is_same(one: &DatabaseUrl, other: &DatabaseUrl) -> bool {
    match (one, other) {
        (DatabaseUrl::MySql(one), DatabaseUrl::MySql(other))
        | (DatabaseUrl::Postgres(one), DatabaseUrl::Postgres(other)) => {
            (&one.host, one.port(), &one.socket) == (&other.host, other.port(), &other.socket)
        }
        (
            DatabaseUrl::MySql(_) | DatabaseUrl::Postgres(_) | DatabaseUrl::Sqlite(_),
            DatabaseUrl::MySql(_) | DatabaseUrl::Postgres(_) | DatabaseUrl::Sqlite(_),
        ) => one == other,
    }
}

impl From<DatabaseUrl> for DatabaseUrls {
    fn from(url: DatabaseUrl) -> Self {
        Self { all: vec![url] }
    }
}

impl fmt::Display for DatabaseUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, url) in self.all.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}{url}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(texts: &[&str]) -> Result<DatabaseUrls, UrlsError> {
        let all = texts.iter().map(|text| text.parse().unwrap()).collect();
        DatabaseUrls::new(all)
    }

    #[test]
    fn the_servers_of_a_cluster_are_of_one_kind_and_have_one_database() {
        let good = urls(&[
            "mysql://k:geheim@db1/kamailio",
            "mysql://k:geheim@db2:3307/kamailio",
        ]);
        let good = good.unwrap();
        assert!(good.is_cluster());
        assert_eq!(
            good.to_string(),
            "mysql://k@db1:3306/kamailio, mysql://k@db2:3307/kamailio"
        );
        for (bad, said) in [
            (&[][..], "the list is empty"),
            (
                &["mysql://k:p@db1/k", "postgres://k:p@db2/k"],
                "entry 2 (postgres://k@db2:5432/k) is a server of another kind than entry 1 (mysql://k@db1:3306/k)",
            ),
            (
                &["mysql://k:p@db1/k", "sqlite:a.db"],
                "entry 2 is the SQLite file sqlite:a.db",
            ),
            (
                &["sqlite:a.db", "sqlite:b.db"],
                "entry 1 is the SQLite file sqlite:a.db",
            ),
            (
                &["mysql://k:p@db1/k", "mysql://k:p@db2/other"],
                "entry 2 (mysql://k@db2:3306/other) has another database",
            ),
            (
                &[
                    "mysql://k:p@db1/k",
                    "mysql://k:p@db2/k",
                    "mysql://x:y@db1:3306/k",
                ],
                "entry 3 (mysql://x@db1:3306/k) is the same server as entry 1",
            ),
        ] {
            let error = urls(bad).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
            assert!(
                !error.contains(":p@") && !error.contains("geheim"),
                "{error}"
            );
        }
    }

    #[test]
    fn names_of_hosts_spread_over_the_servers_and_keep_the_order() {
        let texts = ["mysql://k@a/k", "mysql://k@b/k", "mysql://k@c/k"];
        let all = urls(&texts).unwrap();
        let mut begins = [0_usize; 3];
        for host in 0..300 {
            let spread = all.clone().spread(&format!("edge{host}.example.net"));
            let at = all.all().iter().position(|url| url == spread.first());
            let at = at.unwrap();
            begins[at] += 1;
            assert_eq!(spread.all()[1], all.all()[(at + 1) % 3]);
            assert_eq!(spread.all()[2], all.all()[(at + 2) % 3]);
        }
        assert!(begins.iter().all(|count| *count > 60), "{begins:?}");
        let again = || all.clone().spread("edge7.example.net");
        assert_eq!(again(), again());
    }
}
