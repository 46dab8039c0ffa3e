//! Where operators keep the rows: MySQL, MariaDB or SQLite, with Kamailio's tables as they are.
//!
//! Every column is asked for as text and read here. So a changed schema (a text column for the mask, a NULL) gives an error that
//! names row and column instead of a silent 0, and numbers are never cut to the driver's types.

mod error;
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
pub(crate) use watch::Watcher;

use crate::row::{Row, RowWarning};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long SQLite waits for a writer of another process.
const BUSY: Duration = Duration::from_secs(5);

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
        let mut link = self.open().await?;
        self.check_version(&mut link).await?;
        link.close().await;
        Ok(())
    }

    /// Makes Kamailio's tables `version` and `address` where they are absent.
    ///
    /// # Errors
    /// When the database cannot be reached or forbids it.
    pub async fn create_tables(&self) -> Result<(), DatabaseError> {
        let mut link = self.open().await?;
        let made = match &mut link {
            Link::MySql(link) => link.execute(sqlx::raw_sql(MYSQL_TABLES)).await.map(drop),
            Link::Sqlite(link) => link.execute(sqlx::raw_sql(SQLITE_TABLES)).await.map(drop),
        };
        link.close().await;
        made.map_err(|error| self.failed(&error))
    }

    /// Adds a row (Kamailio: `kamctl address add`), unless a load would skip it.
    ///
    /// # Errors
    /// When the row cannot be used, or the database fails.
    pub async fn add(&self, row: &NewRow) -> Result<Option<RowWarning>, AddError> {
        let warning = row.check()?;
        let mut link = self.open().await?;
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
                    .await
                    .map(drop)
            };
        }
        let added = match &mut link {
            Link::MySql(link) => insert!(link),
            Link::Sqlite(link) => insert!(link),
        };
        link.close().await;
        added.map_err(|error| self.failed(&error))?;
        Ok(warning)
    }

    /// Removes all rows of this group and address, whatever mask and port they have (Kamailio: `kamctl address rm`). The number
    /// of rows removed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove(&self, group: i64, ip_addr: &str) -> Result<u64, DatabaseError> {
        let mut link = self.open().await?;
        const DELETE: &str = "DELETE FROM address WHERE grp = ? AND ip_addr = ?";
        macro_rules! delete {
            ($link:expr) => {
                sqlx::query(DELETE)
                    .bind(group)
                    .bind(ip_addr)
                    .execute($link)
                    .await
                    .map(|done| done.rows_affected())
            };
        }
        let removed = match &mut link {
            Link::MySql(link) => delete!(link),
            Link::Sqlite(link) => delete!(link),
        };
        link.close().await;
        removed.map_err(|error| self.failed(&error))
    }

    /// All rows in the order in which a load reads them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rows(&self) -> Result<Vec<StoredRow>, DatabaseError> {
        let mut rows = Vec::new();
        self.each_row(|row| rows.push(row.to_stored())).await?;
        Ok(rows)
    }

    pub(crate) async fn open(&self) -> Result<Link, DatabaseError> {
        let opened = match &self.url {
            DatabaseUrl::MySql(url) => {
                let options = url.options().disable_statement_logging();
                timeout(CONNECT, MySqlConnection::connect_with(&options))
                    .await
                    .map(|opened| opened.map(Link::MySql))
            }
            DatabaseUrl::Sqlite(path) => timeout(CONNECT, open_sqlite(path))
                .await
                .map(|opened| opened.map(Link::Sqlite)),
        };
        match opened {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(self.unreachable(&describe(&error))),
            Err(_elapsed) => {
                Err(self.unreachable(&format!("no answer in {} s", CONNECT.as_secs())))
            }
        }
    }

    fn unreachable(&self, cause: &str) -> DatabaseError {
        DatabaseError::Unreachable {
            url: self.url.to_string(),
            cause: cause.to_owned(),
        }
    }

    pub(crate) fn failed(&self, error: &sqlx::Error) -> DatabaseError {
        let url = self.url.to_string();
        let cause = describe(error);
        let code = error.as_database_error().and_then(|error| error.code());
        // MySQL: "Table … doesn't exist"; SQLite has no code of its own for it.
        if code.as_deref() == Some("42S02") || cause.contains("no such table") {
            let is_version = cause.contains("version");
            let table = if is_version { "version" } else { "address" };
            return DatabaseError::NoTable { url, table };
        }
        DatabaseError::Failed { url, cause }
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
async fn open_sqlite(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY)
        .disable_statement_logging();
    if path.exists() {
        return SqliteConnection::connect_with(&options).await;
    }
    let mut link = SqliteConnection::connect_with(&options.create_if_missing(true)).await?;
    link.execute(sqlx::raw_sql(SQLITE_TABLES)).await?;
    Ok(link)
}

fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
