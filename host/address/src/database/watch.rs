//! Noticing that the table has changed, without triggers and without reading it.
//!
//! | engine | what is asked | cost |
//! |---|---|---|
//! | SQLite | `PRAGMA data_version` on a kept connection, and which file the path names | none worth a number |
//! | MySQL, MariaDB with InnoDB, Aria, MyISAM | `UPDATE_TIME` in `information_schema.TABLES` | one small query, whatever the size |
//! | a view, another engine | a checksum over all rows, every tenth time | grows with the table |

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sqlx::mysql::MySqlConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Executor, Row};

use super::{Database, DatabaseError, DatabaseUrl, Link};

/// A checksum is taken once in so many looks.
const CHECKSUM_EVERY: u32 = 10;

/// Looks whether the table has changed.
pub(crate) struct Watcher {
    database: Database,
    link: Option<Link>,
    seen: Option<Mark>,
    looks: u32,
}

/// What tells one state of the table from another.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    /// SQLite: device and inode of the file, and the version that the connection sees.
    File {
        device: u64,
        inode: u64,
        version: i64,
    },
    /// The time of the last change in whole seconds, NULL when there was none since the server's start. Within that second more
    /// changes may follow that do not show.
    Time { updated: Option<i64>, settled: bool },
    /// Number of rows, and the sum of their checksums.
    Checksum { rows: i64, sum: String },
}

impl Watcher {
    pub(crate) fn new(database: Database) -> Self {
        Self {
            database,
            link: None,
            seen: None,
            looks: 0,
        }
    }

    /// Whether the table may have changed since the last look that said so. The first look says yes.
    ///
    /// To be asked before a load: what changes while the load runs shows in the next look.
    pub(crate) async fn has_changed(&mut self) -> Result<bool, DatabaseError> {
        let mark = match self.look().await {
            Ok(mark) => mark,
            Err(error) => {
                // The connection may be dead. After it the state is unknown, so whatever comes next counts as a change.
                self.link = None;
                self.seen = None;
                return Err(error);
            }
        };
        let Some(mark) = mark else {
            return Ok(false);
        };
        let changed = match (&self.seen, &mark) {
            // The last look was within the second of a change: there may have been another one.
            (Some(Mark::Time { settled: false, .. }), _) => true,
            (
                Some(Mark::Time {
                    updated: before, ..
                }),
                Mark::Time { updated: now, .. },
            ) => before != now,
            (seen, mark) => seen.as_ref() != Some(mark),
        };
        self.seen = Some(mark);
        Ok(changed)
    }

    async fn look(&mut self) -> Result<Option<Mark>, DatabaseError> {
        self.looks = self.looks.wrapping_add(1);
        if let DatabaseUrl::Sqlite(path) = self.database.url() {
            let path = path.clone();
            return self.look_at_file(&path).await.map(Some);
        }
        let mut link = match self.link.take() {
            Some(link) => link,
            None => self.database.open().await?,
        };
        let mark = match &mut link {
            Link::MySql(mysql) => look_at_server(mysql, self.looks).await,
            // Unreachable: the URL is MySQL's.
            Link::Sqlite(_) => Ok(None),
        };
        let mark = mark.map_err(|error| self.database.failed(&error))?;
        self.link = Some(link);
        Ok(mark)
    }

    async fn look_at_file(&mut self, path: &Path) -> Result<Mark, DatabaseError> {
        let (device, inode) = match std::fs::metadata(path) {
            Ok(meta) => (meta.dev(), meta.ino()),
            // The load makes a new file, and the next look sees it.
            Err(_) => (0, 0),
        };
        let is_same = matches!(&self.seen, Some(Mark::File { device: d, inode: i, .. }) if (*d, *i) == (device, inode));
        if !is_same && let Some(link) = self.link.take() {
            link.close().await;
        }
        if inode == 0 {
            return Ok(Mark::File {
                device,
                inode,
                version: 0,
            });
        }
        let mut link = match self.link.take() {
            Some(link) => link,
            None => self.database.open().await?,
        };
        let version = match &mut link {
            Link::Sqlite(sqlite) => data_version(sqlite).await,
            // Unreachable: the URL is SQLite's.
            Link::MySql(_) => Ok(0),
        };
        let version = version.map_err(|error| self.database.failed(&error))?;
        self.link = Some(link);
        Ok(Mark::File {
            device,
            inode,
            version,
        })
    }
}

async fn data_version(link: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("PRAGMA data_version")
        .fetch_one(link)
        .await
}

async fn look_at_server(
    link: &mut MySqlConnection,
    looks: u32,
) -> Result<Option<Mark>, sqlx::Error> {
    // MySQL 8 shows times that may be a day old unless told otherwise; MariaDB does not know the variable.
    let _unknown_to_mariadb = link
        .execute(sqlx::raw_sql(
            "SET SESSION information_schema_stats_expiry = 0",
        ))
        .await;
    let row = sqlx::query(
        "SELECT CONVERT(ENGINE USING utf8mb4), CAST(UNIX_TIMESTAMP(UPDATE_TIME) AS SIGNED), CAST(UNIX_TIMESTAMP() AS SIGNED) \
         FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'address'",
    )
    .fetch_optional(&mut *link)
    .await?;
    let Some(row) = row else {
        // Not there: the load says so.
        return Ok(Some(Mark::Time {
            updated: None,
            settled: true,
        }));
    };
    let engine: Option<&str> = row.try_get(0)?;
    if matches!(engine, Some("InnoDB" | "MyISAM" | "Aria")) {
        let updated: Option<i64> = row.try_get(1)?;
        let now: i64 = row.try_get(2)?;
        return Ok(Some(Mark::Time {
            updated,
            settled: updated.is_none_or(|updated| now > updated + 1),
        }));
    }
    if looks % CHECKSUM_EVERY != 1 {
        return Ok(None);
    }
    let row = sqlx::query(
        "SELECT COUNT(*), CONVERT(COALESCE(SUM(CRC32(CONCAT_WS('|', id, grp, ip_addr, mask, port, COALESCE(tag, '-')))), 0) USING utf8mb4) \
         FROM address",
    )
    .fetch_one(link)
    .await?;
    Ok(Some(Mark::Checksum {
        rows: row.try_get(0)?,
        sum: row.try_get(1)?,
    }))
}
