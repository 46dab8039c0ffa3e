//! What one answer of a database says of the tables that are followed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use portcullis_file_id::FileId;
use tokio::time::timeout;

use super::look::{ChangeSource, Look};
use super::mysql::Times;
use super::postgres::Seen;
use crate::connections::Connections;
use crate::{DatabaseUrl, Failure, Name};

/// Time limit of a look.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// Time limit of the answer to a look where another server can be asked instead.
const LOOK_AT_ONE: Duration = Duration::from_secs(1);

/// How long a look waits for its turn on the connection of an SQLite file. The next look sees what this one would have seen.
const TURN: Duration = Duration::from_secs(1);

/// Identifies one state of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mark {
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

/// The states of the followed tables, as one server shows them.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The server, by its place in the list; 0 for a file.
    pub(super) server: usize,
    /// Without those that were not asked for, and empty if the connection of an SQLite file was in use for too long.
    pub(super) tables: BTreeMap<Name, Mark>,
}

impl Marks {
    /// Asks for all of these tables at once.
    ///
    /// # Errors
    /// When the database cannot be reached or queried.
    pub(super) async fn ask(connections: &Connections, tables: &[Name]) -> Result<Self, Failure> {
        let all = || tables.iter().cloned();
        let path = match connections.url() {
            DatabaseUrl::Sqlite(path) => path,
            DatabaseUrl::MySql(_) | DatabaseUrl::Postgres(_) => {
                return Self::ask_server(connections, tables).await;
            }
        };
        let mark = mark_of_file(connections, path).await?;
        let tables = mark.map(|mark| all().map(|table| (table, mark.clone())).collect());
        Ok(Self {
            server: 0,
            tables: tables.unwrap_or_default(),
        })
    }

    async fn ask_server(connections: &Connections, tables: &[Name]) -> Result<Self, Failure> {
        let limit = match connections.is_cluster() {
            true => LOOK_AT_ONE,
            false => LOOK,
        };
        let mut link = connections.take(limit).await?;
        let server = link.origin.server;
        let tables = match link.url() {
            DatabaseUrl::Postgres(_) => {
                let seen = Seen::ask(&mut link, tables).await?;
                let mark = |(table, seen)| (table, Mark::Postgres(seen));
                seen.into_iter().map(mark).collect()
            }
            DatabaseUrl::MySql(_) | DatabaseUrl::Sqlite(_) => {
                let times = Times::ask(&mut link, tables).await?;
                let mark = |(table, times)| (table, Mark::MySql(times));
                times.into_iter().map(mark).collect()
            }
        };
        link.release().await;
        Ok(Self { server, tables })
    }
}

/// `None` if the connection is in use for too long.
async fn mark_of_file(connections: &Connections, path: &Path) -> Result<Option<Mark>, Failure> {
    let Some(id) = FileId::at(path) else {
        return Ok(Some(Mark::NoFile));
    };
    if connections.is_absent() {
        let url = connections.url().to_string();
        return Err(Failure::NoFile { url });
    }
    // While the connection is kept, the file stays open, and no other file has its identity. A file that was replaced while it was being
    // opened is not kept: the next look opens the new one.
    let Ok(link) = timeout(TURN, connections.take_unseen(LOOK)).await else {
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

impl Mark {
    /// The change since an earlier mark of the same table.
    pub(super) fn since(&self, before: &Self) -> Look {
        match (self, before) {
            (Self::MySql(times), Self::MySql(before)) => times.since(before),
            (Self::Postgres(seen), Self::Postgres(before)) => seen.since(before),
            _ if self == before => Look::Same,
            _ => Look::Changed,
        }
    }

    pub(super) fn source(&self) -> ChangeSource {
        match self {
            Self::Sqlite { .. } | Self::NoFile => ChangeSource::DataVersion,
            Self::MySql(times) => times.source(),
            Self::Postgres(seen) => seen.source(),
        }
    }
}
