//! Noticing that a table has changed, without triggers and without reading it.
//!
//! | what | what is asked | cost |
//! |---|---|---|
//! | SQLite | `PRAGMA data_version` on a kept connection, and which file the path names | none worth a number |
//! | InnoDB, MyISAM | `UPDATE_TIME` in `information_schema.TABLES`, also for a user who may only read | one small query, whatever the size |
//! | address file | inode, size, times | one system call |
//! | Aria, MEMORY, partitioned tables | the same, but it does not show every change: the book also reads the table every now and then, and compares | grows with the table |
//! | views | nothing: the book only reads and compares | grows with the table |
//!
//! InnoDB keeps the time of the last change in memory. A server that was started since has none, and says so until the next change:
//! then nothing is read either, but for a look now and then in case it forgets a table that is in use.

mod mark;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::mysql::{MySql, MySqlConnection};
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Decode, Executor, Row};
use tokio::time::timeout;

use super::schema::Name;
use super::{Absent, Database, DatabaseError, DatabaseUrl, Link, explain};
use mark::{FileId, Mark, Times, file_id, file_stamp};

/// How long a look may take.
const LOOK: Duration = Duration::from_secs(5);

const FRESH_TIMES: &str = "SET SESSION information_schema_stats_expiry = 0";

/// Looks whether a table has changed. [`AddressBook::watch`](crate::AddressBook::watch) has one, and looks by itself.
pub struct Watcher {
    database: Database,
    watched: Watched,
    server: Option<MySqlConnection>,
    file: Option<OpenFile>,
    seen: Option<Mark>,
    source: Option<ChangeSource>,
}

/// How changes are noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeSource {
    /// By the number that SQLite counts up with each change of the file by others.
    DataVersion,
    /// By the time of the last change, which the server knows for tables of this engine.
    UpdateTime {
        /// The engine, in the server's words.
        engine: String,
    },
    /// By the size and the times of a file.
    FileStamp,
    /// Not at all: the table is read every now and then, and compared.
    Reread {
        /// Why there is no better way.
        why: String,
    },
}

/// What a watcher watches.
enum Watched {
    Table(Name),
    File(PathBuf),
}

/// A file of SQLite, and which one it is: as long as it is open, no other file has its number.
struct OpenFile {
    link: SqliteConnection,
    id: FileId,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The table is as it was at the last look.
    Same,
    /// It may have changed since.
    Changed,
    /// Nothing tells of a change, and nothing would be lost but the memory of the server.
    Quiet,
    /// The database does not say.
    Unknown,
}

impl Watcher {
    /// Watches where the addresses come from. Nothing is opened yet.
    pub fn new(database: Database) -> Self {
        let watched = match database.address_file() {
            Some(path) => Watched::File(path.to_owned()),
            None => Watched::Table(database.schema().address.table.clone()),
        };
        Self::of(database, watched)
    }

    /// Watches the table of trusted peers.
    pub fn of_trusted(database: Database) -> Self {
        let table = database.schema().trusted.table.clone();
        Self::of(database, Watched::Table(table))
    }

    fn of(database: Database, watched: Watched) -> Self {
        Self {
            database,
            watched,
            server: None,
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
    pub async fn look(&mut self) -> Result<Look, DatabaseError> {
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
        self.source = Some(mark.source());
        if before.is_some() && before.as_ref() != Some(&mark) && mark.is_being_written() {
            // Half a file is no table: it is read when it has come to rest.
            self.seen = before;
            return Ok(Look::Same);
        }
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
        match (&self.watched, self.database.url()) {
            (Watched::File(path), _) => Ok(file_stamp(path)),
            (Watched::Table(_), DatabaseUrl::Sqlite(path)) => {
                let path = path.clone();
                self.mark_of_file(&path).await
            }
            (Watched::Table(table), DatabaseUrl::MySql(_)) => {
                let times = times(table);
                self.mark_of_server(times).await
            }
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
        Ok(Mark::Sqlite { id, version })
    }

    async fn mark_of_server(
        &mut self,
        times: AssertSqlSafe<String>,
    ) -> Result<Mark, DatabaseError> {
        let mut link = match self.server.take() {
            Some(link) => link,
            None => self.open_server().await?,
        };
        let row = link.fetch_optional(sqlx::raw_sql(times)).await;
        let row = row.map_err(|error| self.database.failed(&error))?;
        self.server = Some(link);
        let text = |at| {
            let value = row.as_ref()?.try_get_raw(at).ok()?;
            // NULL is no text.
            <String as Decode<'_, MySql>>::decode(value).ok()
        };
        Ok(Mark::Server(Times {
            kind: text(0),
            engine: text(1),
            created: text(2),
            updated: text(3),
            signs: text(5),
            age: text(4)
                .and_then(|age| age.parse().ok())
                .unwrap_or(f64::INFINITY),
        }))
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

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("database", &self.database)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for ChangeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataVersion => f.write_str("data_version of the SQLite file"),
            Self::UpdateTime { engine } => write!(f, "UPDATE_TIME of the {engine} table"),
            Self::FileStamp => f.write_str("size and times of the file"),
            Self::Reread { why } => write!(f, "reading it again ({why})"),
        }
    }
}

/// Asks for what [`Times`] has.
fn times(table: &Name) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "SELECT CONCAT(TABLE_TYPE, IF(CREATE_OPTIONS LIKE '%partitioned%', ' PARTITIONED', '')), CAST(ENGINE AS CHAR), \
         CAST(CREATE_TIME AS CHAR), CAST(UPDATE_TIME AS CHAR), \
         CAST(TIMESTAMPDIFF(MICROSECOND, UPDATE_TIME, NOW(6)) / 1000000 AS CHAR), \
         CONCAT_WS('/', AUTO_INCREMENT, IF(ENGINE = 'InnoDB', TABLE_ROWS = 0, TABLE_ROWS), CHECKSUM) \
         FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}",
        table.literal()
    ))
}
