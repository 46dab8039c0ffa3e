//! Noticing that the table has changed, without triggers and without reading it.
//!
//! | engine | what is asked | cost |
//! |---|---|---|
//! | SQLite | `PRAGMA data_version` on a kept connection, and which file the path names | none worth a number |
//! | MySQL, MariaDB | `UPDATE_TIME` in `information_schema.TABLES` | one small query, whatever the size |
//!
//! A view, a partitioned table, or a server that was restarted since the last change has no such time. Then the book reads
//! the table every now and then, and compares.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use sqlx::mysql::{MySql, MySqlConnection};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Decode, Executor, Row};
use tokio::time::timeout;

use super::{Absent, Database, DatabaseError, DatabaseUrl, Link, explain};

/// How long a look may take.
const LOOK: Duration = Duration::from_secs(5);

/// A change shows as a time in whole seconds, and is stamped a little before it can be read. A look that comes this long after
/// the second began has seen all of its changes. In seconds.
const SETTLED: f64 = 1.25;

const TIMES: &str = "SELECT CAST(CREATE_TIME AS CHAR), CAST(UPDATE_TIME AS CHAR), \
     CAST(TIMESTAMPDIFF(MICROSECOND, UPDATE_TIME, NOW(6)) / 1000000 AS CHAR) \
     FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'address'";

const FRESH_TIMES: &str = "SET SESSION information_schema_stats_expiry = 0";

/// Looks whether the table has changed.
pub(crate) struct Watcher {
    database: Database,
    server: Option<MySqlConnection>,
    file: Option<OpenFile>,
    seen: Option<Mark>,
}

/// A file of SQLite, and which one it is: as long as it is open, no other file has its number.
struct OpenFile {
    link: SqliteConnection,
    id: FileId,
}

/// Device and inode.
type FileId = (u64, u64);

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The table is as it was at the last look.
    Same,
    /// It may have changed since.
    Changed,
    /// The database does not say.
    Unknown,
}

/// What tells one state of the table from another.
#[derive(Clone, Debug, PartialEq)]
enum Mark {
    /// SQLite: the file, and the version that the connection sees.
    File { id: FileId, version: i64 },
    /// There is no file.
    NoFile,
    /// When the table was made and last changed, in whole seconds.
    Times {
        created: Option<String>,
        updated: Option<String>,
        /// How long ago that was when it was asked, in seconds.
        age: f64,
    },
}

impl Watcher {
    pub(crate) fn new(database: Database) -> Self {
        Self {
            database,
            server: None,
            file: None,
            seen: None,
        }
    }

    /// Whether the table may have changed since the last look. The first look finds a change, as does the first after one
    /// that failed.
    ///
    /// To be asked before a load: what changes while the load runs shows in the next look.
    pub(crate) async fn look(&mut self) -> Result<Look, DatabaseError> {
        let before = self.seen.take();
        let looked = match timeout(LOOK, self.mark()).await {
            Ok(looked) => looked,
            Err(_elapsed) => Err(explain::no_answer(self.database.url(), LOOK)),
        };
        let mark = match looked {
            Ok(mark) => mark,
            Err(error) => {
                self.server = None;
                self.file = None;
                return Err(error);
            }
        };
        let look = match &before {
            Some(before) => mark.since(before),
            None => Look::Changed,
        };
        self.seen = Some(mark);
        Ok(look)
    }

    /// The next look finds a change: what the last one found was not loaded.
    pub(crate) fn forget(&mut self) {
        self.seen = None;
    }

    async fn mark(&mut self) -> Result<Mark, DatabaseError> {
        match self.database.url().clone() {
            DatabaseUrl::Sqlite(path) => self.mark_of_file(&path).await,
            DatabaseUrl::MySql(_) => self.mark_of_server().await,
        }
    }

    async fn mark_of_file(&mut self, path: &Path) -> Result<Mark, DatabaseError> {
        let Some(id) = file_id(path) else {
            self.file = None;
            return Ok(Mark::NoFile);
        };
        let mut file = match self.file.take() {
            Some(file) if file.id == id => file,
            _ => match self.database.open(Absent::Refuse).await? {
                Link::Sqlite(link) => OpenFile { link, id },
                Link::MySql(_) => return Ok(Mark::NoFile),
            },
        };
        let version = sqlx::query_scalar("PRAGMA data_version")
            .fetch_one(&mut file.link)
            .await;
        let version = version.map_err(|error| self.database.failed(&error))?;
        // Another file may have come in its place while it was opened: then the next look opens that one.
        if file_id(path) == Some(id) {
            self.file = Some(file);
        }
        Ok(Mark::File { id, version })
    }

    async fn mark_of_server(&mut self) -> Result<Mark, DatabaseError> {
        let mut link = match self.server.take() {
            Some(link) => link,
            None => self.open_server().await?,
        };
        let times = link.fetch_optional(sqlx::raw_sql(TIMES)).await;
        let times = times.map_err(|error| self.database.failed(&error))?;
        self.server = Some(link);
        let text = |at| {
            let value = times.as_ref()?.try_get_raw(at).ok()?;
            // NULL is no text.
            <String as Decode<'_, MySql>>::decode(value).ok()
        };
        Ok(Mark::Times {
            created: text(0),
            updated: text(1),
            age: text(2)
                .and_then(|age| age.parse().ok())
                .unwrap_or(f64::INFINITY),
        })
    }

    async fn open_server(&self) -> Result<MySqlConnection, DatabaseError> {
        match self.database.open(Absent::Refuse).await? {
            Link::MySql(mut link) => {
                // MySQL 8 shows times that may be a day old unless told otherwise. Others do not know the variable.
                let _unknown = link.execute(sqlx::raw_sql(FRESH_TIMES)).await;
                Ok(link)
            }
            Link::Sqlite(_) => Err(explain::no_answer(self.database.url(), LOOK)),
        }
    }
}

impl Mark {
    /// What happened since an earlier mark of the same table.
    fn since(&self, before: &Self) -> Look {
        let (
            Self::Times {
                created, updated, ..
            },
            Self::Times {
                created: c,
                updated: u,
                age,
            },
        ) = (self, before)
        else {
            return match self == before {
                true => Look::Same,
                false => Look::Changed,
            };
        };
        match updated {
            _ if (created, updated) != (c, u) => Look::Changed,
            None => Look::Unknown,
            // The second of the last change was not over: there may have been another change in it.
            Some(_) if *age < SETTLED => Look::Changed,
            Some(_) => Look::Same,
        }
    }
}

fn file_id(path: &Path) -> Option<FileId> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(updated: Option<&str>, age: f64) -> Mark {
        Mark::Times {
            created: Some("2026-01-01 00:00:00".to_owned()),
            updated: updated.map(str::to_owned),
            age,
        }
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
    fn a_server_without_times_is_no_reason_to_trust() {
        let none = times(None, f64::INFINITY);
        assert_eq!(none.since(&none), Look::Unknown);
        assert_eq!(
            none.since(&times(Some("12:00:07"), 99.0)),
            Look::Changed,
            "it was restarted"
        );
        assert_eq!(times(Some("12:00:07"), 99.0).since(&none), Look::Changed);
        let absent = Mark::Times {
            created: None,
            updated: None,
            age: f64::INFINITY,
        };
        assert_eq!(none.since(&absent), Look::Changed, "the table was made");
    }
}
