//! Detects changes of a table, without triggers and without reading the table.
//!
//! | storage | query | cost |
//! |---|---|---|
//! | SQLite | `PRAGMA data_version` on the connection that the audit is written over, and the identity of the file | negligible |
//! | InnoDB, MyISAM | `UPDATE_TIME` in `information_schema.TABLES`, also for a read-only user | one small query, independent of the size |
//! | Aria, MEMORY, partitioned tables | the same, but not every change is visible: the watcher also reads the table at intervals, and compares | grows with the table |
//! | PostgreSQL | the transaction snapshot, which proves that nothing was written, and the counters of the table; while others write, the watcher also reads the table at intervals, and compares | one small query; with other writers it grows with the table |
//! | Galera | the same as InnoDB on each node: a node notes the time of changes that it receives, too | the same |
//! | views | none: the watcher only reads and compares | grows with the table |
//!
//! After a change of the server, each table is read again: times and counters of two servers cannot be compared.
//!
//! InnoDB keeps the time of the last change in memory. A server that has been restarted since reports none until the next change: then the
//! table is not read either, except at intervals in case the server has evicted the metadata of a table in use.

mod look;
mod mysql;
mod postgres;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use crate::connections::Connections;
use crate::file_id::{FileId, file_id};
use crate::{DatabaseUrl, Failure, Name};
pub use look::{ChangeSource, Look};

use mysql::Times;
use postgres::Seen;

/// Time limit of a poll.
const LOOK: Duration = Duration::from_secs(5);

/// Time limit of the answer to a poll where another server can be asked instead.
const LOOK_AT_ONE: Duration = Duration::from_secs(1);

/// How long a poll waits for its turn on the connection of an SQLite file. The next poll sees what this one would have seen.
const TURN: Duration = Duration::from_secs(1);

/// Detects changes of a table.
pub struct TableWatch {
    connections: Connections,
    table: Name,
    /// The state seen last, and the server that showed it.
    seen: Option<(usize, Mark)>,
    source: Option<ChangeSource>,
}

/// Identifies one state of a table.
#[derive(Clone, Debug, PartialEq)]
enum Mark {
    /// SQLite: the file, the number of the connection, and the version that the connection sees.
    Sqlite {
        id: FileId,
        connection: u64,
        version: Option<i64>,
    },
    /// SQLite: there is no file.
    NoFile,
    /// MySQL or MariaDB.
    MySql(Times),
    /// PostgreSQL.
    Postgres(Seen),
}

impl TableWatch {
    /// Watches a table. Opens no connection yet.
    pub fn new(connections: Connections, table: Name) -> Self {
        Self {
            connections,
            table,
            seen: None,
            source: None,
        }
    }

    /// The method of change detection, as of the last successful poll.
    pub fn source(&self) -> Option<&ChangeSource> {
        self.source.as_ref()
    }

    /// Whether the table may have changed since the last poll. The first poll reports a change, and so does the first after a failed one.
    ///
    /// To be called before a load: a change during the load is reported by the next poll.
    ///
    /// # Errors
    /// When the database cannot be reached or queried.
    pub async fn look(&mut self) -> Result<Look, Failure> {
        let before = self.seen.take();
        let looked = match timeout(LOOK, self.mark()).await {
            Ok(looked) => looked,
            Err(_elapsed) => Err(Failure::hung(self.connections.url(), LOOK)),
        };
        let Some((server, mark)) = looked? else {
            self.seen = before;
            return Ok(match self.seen {
                Some(_) => Look::Same,
                None => Look::Changed,
            });
        };
        self.source = Some(mark.source());
        let look = match &before {
            // Times and counters of another server say nothing of those of this one.
            Some((other, _)) if *other != server => Look::Changed,
            Some((_, before)) => mark.since(before),
            None => Look::Changed,
        };
        self.seen = Some((server, mark));
        Ok(look)
    }

    /// Makes the next poll report a change: the load after the last one failed.
    pub fn forget(&mut self) {
        self.seen = None;
    }

    /// What the database says now; `None` if the connection of an SQLite file is in use for too long.
    async fn mark(&self) -> Result<Option<(usize, Mark)>, Failure> {
        let limit = match self.connections.is_cluster() {
            true => LOOK_AT_ONE,
            false => LOOK,
        };
        match self.connections.url() {
            DatabaseUrl::Sqlite(path) => {
                let mark = self.mark_of_file(path).await?;
                Ok(mark.map(|mark| (0, mark)))
            }
            DatabaseUrl::MySql(_) => {
                let mut link = self.connections.take(limit).await?;
                let times = Times::ask(&mut link, &self.table).await?;
                let server = link.origin.server;
                link.release().await;
                Ok(Some((server, Mark::MySql(times))))
            }
            DatabaseUrl::Postgres(_) => {
                let mut link = self.connections.take(limit).await?;
                let seen = Seen::ask(&mut link, &self.table).await?;
                let server = link.origin.server;
                link.release().await;
                Ok(Some((server, Mark::Postgres(seen))))
            }
        }
    }

    async fn mark_of_file(&self, path: &Path) -> Result<Option<Mark>, Failure> {
        let Some(id) = file_id(path) else {
            return Ok(Some(Mark::NoFile));
        };
        if self.connections.is_absent() {
            let url = self.connections.url().to_string();
            return Err(Failure::NoFile { url });
        }
        // While the connection is kept, the file stays open, and no other file has its identity. A file that was replaced while it was being
        // opened is not kept: the next poll opens the new one.
        let Ok(link) = timeout(TURN, self.connections.take_unseen(LOOK)).await else {
            return Ok(None);
        };
        let mut link = link?;
        // The counter includes writes of other connections only.
        let version = link.row("PRAGMA data_version", &[], |row| row.integer(0));
        let version = version.await?.flatten();
        let connection = link.number();
        link.release().await;
        Ok(Some(Mark::Sqlite {
            id,
            connection,
            version,
        }))
    }
}

impl Mark {
    /// The change since an earlier mark of the same table.
    fn since(&self, before: &Self) -> Look {
        match (self, before) {
            (Self::MySql(times), Self::MySql(before)) => times.since(before),
            (Self::Postgres(seen), Self::Postgres(before)) => seen.since(before),
            _ if self == before => Look::Same,
            _ => Look::Changed,
        }
    }

    fn source(&self) -> ChangeSource {
        match self {
            Self::Sqlite { .. } | Self::NoFile => ChangeSource::DataVersion,
            Self::MySql(times) => times.source(),
            Self::Postgres(seen) => seen.source(),
        }
    }
}

impl fmt::Debug for TableWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableWatch")
            .field("connections", &self.connections)
            .field("table", &self.table)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}
