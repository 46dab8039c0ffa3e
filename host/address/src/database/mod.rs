//! Where operators keep the rows: MySQL, MariaDB or SQLite, with Kamailio's tables as they are.
//!
//! Every column is asked for as text and read here. So a changed schema (a text column for the mask, a NULL) gives an error that
//! names row and column instead of a silent 0, and numbers are never cut to the driver's types.

mod error;
mod explain;
mod load;
mod url;
mod watch;

use std::path::Path;
use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Executor};
use tokio::time::timeout;

pub use error::{AddError, DatabaseError};
pub use load::Loaded;
pub use url::{DatabaseUrl, MySqlUrl, UrlError};
pub(crate) use watch::{Look, Watcher};

use crate::row::{Row, RowWarning};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long SQLite waits for a writer of another process.
const BUSY: Duration = Duration::from_secs(5);

/// How many rows SQLite may read ahead of us.
const ROWS_AHEAD: usize = 1024;

const MYSQL_TABLES: &str = include_str!("../../../../migrations/mysql/0001_address.sql");
const SQLITE_TABLES: &str = include_str!("../../../../migrations/sqlite/0001_address.sql");

/// The width of the columns `ip_addr` and `tag` in characters.
const IP_ADDR_WIDTH: usize = 50;
const TAG_WIDTH: usize = 64;

/// A database with the table `address`. Holds no connection: each operation opens its own, so that a database that was away or
/// a file that was replaced needs no care.
#[derive(Clone, Debug)]
pub struct Database {
    url: DatabaseUrl,
}

/// A row to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRow {
    /// Column `grp`.
    pub group: i64,
    /// Column `ip_addr`.
    pub ip_addr: String,
    /// Column `mask`.
    pub mask: i64,
    /// Column `port`.
    pub port: i64,
    /// Column `tag`.
    pub tag: Option<String>,
}

/// A row as it is stored, whatever its columns hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredRow {
    /// Column `id`.
    pub id: Option<String>,
    /// Column `grp`.
    pub group: Option<String>,
    /// Column `ip_addr`.
    pub ip_addr: Option<String>,
    /// Column `mask`.
    pub mask: Option<String>,
    /// Column `port`.
    pub port: Option<String>,
    /// Column `tag`.
    pub tag: Option<String>,
}

/// What to do about a file of SQLite that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Make it, with its tables.
    Make,
    /// Fail.
    Refuse,
}

/// One connection.
pub(crate) enum Link {
    MySql(MySqlConnection),
    Sqlite(SqliteConnection),
}

impl Database {
    /// The database at this place. Nothing is opened yet.
    pub fn new(url: DatabaseUrl) -> Self {
        Self { url }
    }

    /// Its URL.
    pub fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    /// Opens a connection, looks for the table and its version, and closes it again. A file of SQLite that is not there is made,
    /// with its tables; nothing is ever made in MySQL.
    ///
    /// # Errors
    /// When the database cannot be reached or the table is not the one that is expected.
    pub async fn check(&self) -> Result<(), DatabaseError> {
        let mut link = self.open(Absent::Make).await?;
        self.check_version(&mut link).await?;
        link.close().await;
        Ok(())
    }

    /// Makes Kamailio's tables `version` and `address` where they are absent.
    ///
    /// # Errors
    /// When the database cannot be reached or forbids it.
    pub async fn create_tables(&self) -> Result<(), DatabaseError> {
        let mut link = self.open(Absent::Make).await?;
        match &mut link {
            Link::MySql(link) => self
                .run(link.execute(sqlx::raw_sql(MYSQL_TABLES)))
                .await
                .map(drop)?,
            Link::Sqlite(link) => self.run(make_tables(link)).await?,
        }
        link.close().await;
        Ok(())
    }

    /// Adds a row (Kamailio: `kamctl address add`), unless a load would skip it.
    ///
    /// # Errors
    /// When the row cannot be used, or the database fails.
    pub async fn add(&self, row: &NewRow) -> Result<Option<RowWarning>, AddError> {
        let warning = row.check()?;
        let mut link = self.open(Absent::Make).await?;
        self.check_version(&mut link).await?;
        const INSERT: &str =
            "INSERT INTO address (grp, ip_addr, mask, port, tag) VALUES (?, ?, ?, ?, ?)";
        macro_rules! insert {
            ($link:expr) => {
                sqlx::query(INSERT)
                    .bind(row.group)
                    .bind(&row.ip_addr)
                    .bind(row.mask)
                    .bind(row.port)
                    .bind(&row.tag)
                    .execute($link)
            };
        }
        match &mut link {
            Link::MySql(link) => self.run(insert!(link)).await.map(drop)?,
            Link::Sqlite(link) => self.run(insert!(link)).await.map(drop)?,
        }
        link.close().await;
        Ok(warning)
    }

    /// Removes all rows of this group and address, whatever mask and port they have (Kamailio: `kamctl address rm`). The number
    /// of rows removed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove(&self, group: i64, ip_addr: &str) -> Result<u64, DatabaseError> {
        let mut link = self.open(Absent::Refuse).await?;
        const DELETE: &str = "DELETE FROM address WHERE grp = ? AND ip_addr = ?";
        macro_rules! delete {
            ($link:expr) => {
                sqlx::query(DELETE).bind(group).bind(ip_addr).execute($link)
            };
        }
        let removed = match &mut link {
            Link::MySql(link) => self.run(delete!(link)).await?.rows_affected(),
            Link::Sqlite(link) => self.run(delete!(link)).await?.rows_affected(),
        };
        link.close().await;
        Ok(removed)
    }

    /// All rows in the order in which a load reads them. For tables that may be large there is
    /// [`each_row`](Self::each_row).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rows(&self) -> Result<Vec<StoredRow>, DatabaseError> {
        let mut rows = Vec::new();
        self.each_row(|row| rows.push(row)).await?;
        Ok(rows)
    }

    /// Passes all rows on, in the order in which a load reads them, as they arrive.
    ///
    /// # Errors
    /// When the database fails; some rows may have been passed on then.
    pub async fn each_row(&self, mut each: impl FnMut(StoredRow)) -> Result<(), DatabaseError> {
        self.each_text_row(Absent::Refuse, |row| each(row.to_stored()))
            .await
    }

    /// Number of rows, good and bad.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count(&self) -> Result<u64, DatabaseError> {
        let mut link = self.open(Absent::Refuse).await?;
        const COUNT: &str = "SELECT COUNT(*) FROM address";
        let count: i64 = match &mut link {
            Link::MySql(link) => self.run(sqlx::query_scalar(COUNT).fetch_one(link)).await?,
            Link::Sqlite(link) => self.run(sqlx::query_scalar(COUNT).fetch_one(link)).await?,
        };
        link.close().await;
        Ok(count.unsigned_abs())
    }

    pub(crate) async fn open(&self, absent: Absent) -> Result<Link, DatabaseError> {
        let opened = match &self.url {
            DatabaseUrl::MySql(url) => {
                let options = url.options().disable_statement_logging();
                let opened = timeout(CONNECT, MySqlConnection::connect_with(&options)).await;
                opened.map(|opened| opened.map(Link::MySql))
            }
            DatabaseUrl::Sqlite(path) => {
                // SQLite makes an empty file of nothing, and fills it at the first write.
                let is_there = std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
                if absent == Absent::Refuse && !is_there {
                    let url = self.url.to_string();
                    return Err(DatabaseError::NoFile { url });
                }
                let opened = timeout(CONNECT + BUSY, open_sqlite(path, is_there)).await;
                opened.map(|opened| opened.map(Link::Sqlite))
            }
        };
        match opened {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(explain::unreachable(&self.url, &error)),
            Err(_elapsed) => Err(explain::no_answer(&self.url, CONNECT)),
        }
    }

    pub(crate) fn failed(&self, error: &sqlx::Error) -> DatabaseError {
        explain::failed(&self.url, error)
    }
}

impl NewRow {
    /// Whether a load would use the row, and what it would warn of.
    fn check(&self) -> Result<Option<RowWarning>, AddError> {
        let row = Row {
            id: 0,
            group: self.group,
            ip_addr: &self.ip_addr,
            mask: self.mask,
            port: self.port,
            tag: self.tag.as_deref(),
        };
        let (_, warning) = row.validate()?;
        let tag = self.tag.as_deref().unwrap_or_default();
        fits("ip_addr", &self.ip_addr, IP_ADDR_WIDTH)?;
        fits("tag", tag, TAG_WIDTH)?;
        Ok(warning)
    }
}

impl Link {
    pub(crate) async fn close(self) {
        // The server notices either way; this is only politer.
        let _closed = match self {
            Self::MySql(link) => link.close().await,
            Self::Sqlite(link) => link.close().await,
        };
    }
}

fn fits(column: &'static str, text: &str, most: usize) -> Result<(), AddError> {
    let length = text.chars().count();
    if length > most {
        return Err(AddError::TooLong {
            column,
            length,
            most,
        });
    }
    Ok(())
}

/// Opens the file; makes it with its tables when it is not there.
async fn open_sqlite(path: &Path, is_there: bool) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY)
        .row_buffer_size(ROWS_AHEAD)
        .create_if_missing(!is_there)
        .disable_statement_logging();
    let mut link = SqliteConnection::connect_with(&options).await?;
    if !is_there {
        make_tables(&mut link).await?;
    }
    Ok(link)
}

/// All or none, so that a host that dies meanwhile leaves no half of a database, and two that start at once do not meet.
async fn make_tables(link: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    link.execute(sqlx::raw_sql("BEGIN IMMEDIATE")).await?;
    link.execute(sqlx::raw_sql(SQLITE_TABLES)).await?;
    link.execute(sqlx::raw_sql("COMMIT")).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
