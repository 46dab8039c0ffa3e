//! Noticing that a table has changed, without triggers and without reading it.
//!
//! | what | what is asked | cost |
//! |---|---|---|
//! | SQLite | `PRAGMA data_version` on a kept connection, and which file the path names | none worth a number |
//! | InnoDB, MyISAM | `UPDATE_TIME` in `information_schema.TABLES`, also for a user who may only read | one small query, whatever the size |
//! | Aria, MEMORY, partitioned tables | the same, but it does not show every change: who watches also reads the table every now and then, and compares | grows with the table |
//! | PostgreSQL | the snapshot of the transactions, which tells for sure that nothing was written, and the counters of the table; while others write: who watches also reads the table every now and then, and compares | one small query; with other writers it grows with the table |
//! | views | nothing: who watches only reads and compares | grows with the table |
//!
//! InnoDB keeps the time of the last change in memory. A server that was started since has none, and says so until the next change:
//! then nothing is read either, but for a look now and then in case it forgets a table that is in use.

mod look;
mod mysql;
mod postgres;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use crate::connections::Connections;
use crate::file_id::{FileId, file_id};
use crate::link::Link;
use crate::{DatabaseUrl, Failure, Name};
pub use look::{ChangeSource, Look};

use mysql::Times;
use postgres::Seen;

/// How long a look may take.
const LOOK: Duration = Duration::from_secs(5);

/// Looks whether a table has changed.
pub struct TableWatch {
    connections: Connections,
    table: Name,
    file: Option<OpenFile>,
    seen: Option<Mark>,
    source: Option<ChangeSource>,
}

/// What tells one state of a table from another.
#[derive(Clone, Debug, PartialEq)]
enum Mark {
    /// SQLite: the file, and the version that the connection sees.
    Sqlite { id: FileId, version: Option<i64> },
    /// SQLite: there is no file.
    NoFile,
    /// MySQL or MariaDB.
    MySql(Times),
    /// PostgreSQL.
    Postgres(Seen),
}

/// A file of SQLite, and which one it is: as long as it is open, no other file has its number.
struct OpenFile {
    link: Link,
    id: FileId,
}

impl TableWatch {
    /// Watches a table. Nothing is opened yet.
    pub fn new(connections: Connections, table: Name) -> Self {
        Self {
            connections,
            table,
            file: None,
            seen: None,
            source: None,
        }
    }

    /// How changes are noticed, as the last look that succeeded found it.
    pub fn source(&self) -> Option<&ChangeSource> {
        self.source.as_ref()
    }

    /// Whether the table may have changed since the last look. The first look finds a change, as does the first after one
    /// that failed.
    ///
    /// To be asked before a load: what changes while the load runs shows in the next look.
    ///
    /// # Errors
    /// When the database can't be reached or asked.
    pub async fn look(&mut self) -> Result<Look, Failure> {
        let before = self.seen.take();
        let looked = match timeout(LOOK, self.mark()).await {
            Ok(looked) => looked,
            Err(_elapsed) => Err(Failure::hung(self.connections.url(), LOOK)),
        };
        let mark = looked.inspect_err(|_| self.file = None)?;
        self.source = Some(mark.source());
        let look = match &before {
            Some(before) => mark.since(before),
            None => Look::Changed,
        };
        self.seen = Some(mark);
        Ok(look)
    }

    /// The next look finds a change: what the last one found was not loaded.
    pub fn forget(&mut self) {
        self.seen = None;
    }

    async fn mark(&mut self) -> Result<Mark, Failure> {
        match self.connections.url().clone() {
            DatabaseUrl::Sqlite(path) => self.mark_of_file(&path).await,
            DatabaseUrl::MySql(_) => {
                let mut link = self.connections.take(LOOK).await?;
                let times = Times::ask(&mut link, &self.table).await?;
                link.release().await;
                Ok(Mark::MySql(times))
            }
            DatabaseUrl::Postgres(_) => {
                let mut link = self.connections.take(LOOK).await?;
                let seen = Seen::ask(&mut link, &self.table).await?;
                link.release().await;
                Ok(Mark::Postgres(seen))
            }
        }
    }

    async fn mark_of_file(&mut self, path: &Path) -> Result<Mark, Failure> {
        let Some(id) = file_id(path) else {
            self.file = None;
            return Ok(Mark::NoFile);
        };
        let mut file = match self.file.take() {
            Some(file) if file.id == id => file,
            _ => OpenFile {
                link: self.connections.take_existing(LOOK).await?,
                id,
            },
        };
        // It counts what others than this connection have written.
        let version = file
            .link
            .row("PRAGMA data_version", &[], |row| row.integer(0));
        let version = version.await?.flatten();
        // Another file may have come in its place while it was opened: then the next look opens that one.
        if file_id(path) == Some(id) {
            self.file = Some(file);
        }
        Ok(Mark::Sqlite { id, version })
    }
}

impl Mark {
    /// What happened since an earlier mark of the same table.
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
