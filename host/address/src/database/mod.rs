//! Where operators keep the rows: MySQL, MariaDB or SQLite, with Kamailio's tables as they are, or a file in place of the table.
//!
//! Every column is asked for as text and read here. So a changed schema (a text column for the mask, a NULL) gives an error that
//! names row and column instead of a silent 0, and numbers are never cut to the driver's types.

mod address_file;
mod error;
mod explain;
mod import;
mod load;
mod loader;
mod migrate;
mod schema;
mod statements;
mod trusted;
mod url;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::time::timeout;

pub(crate) use address_file::entries;
pub use error::{AddError, DatabaseError};
pub use import::Imported;
pub use load::Loaded;
pub use migrate::{MigrationAction, MigrationStep};
pub use schema::{AddressNames, Name, NameError, Schema, TrustedNames};
pub use trusted::{LoadedTrusted, NewTrusted, StoredTrusted};
pub use url::{DatabaseUrl, MySqlUrl, UrlError};
pub use watch::{ChangeSource, Look, Watcher};

use address_file::AddressFile;
use error::ADDRESS_VERSION;
use statements::Engine;

use crate::row::{Finding, Row, RowError, RowWarning};
use crate::turns;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long SQLite waits for a writer of another process.
const BUSY: Duration = Duration::from_secs(5);

/// How many rows SQLite may read ahead of us.
const ROWS_AHEAD: usize = 1024;

/// The width of the columns `ip_addr` and `tag` in characters.
const IP_ADDR_WIDTH: usize = 50;
const TAG_WIDTH: usize = 64;

/// A database with the tables of Kamailio's `permissions`. Holds no connection: each operation opens its own, so that a database
/// that was away or a file that was replaced needs no care.
///
/// The rows about addresses may come from a file in place of the table; see [`with_address_file`](Self::with_address_file).
#[derive(Clone, Debug)]
pub struct Database {
    url: DatabaseUrl,
    schema: Arc<Schema>,
    address_file: Option<AddressFile>,
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
    /// The database at this place, with Kamailio's names of tables and columns. Nothing is opened yet.
    pub fn new(url: DatabaseUrl) -> Self {
        Self {
            url,
            schema: Arc::default(),
            address_file: None,
        }
    }

    /// The same with other names of tables and columns.
    #[must_use]
    pub fn with_schema(mut self, schema: Schema) -> Self {
        self.schema = Arc::new(schema);
        self
    }

    /// The same with a file in place of the table of addresses, in the format of Kamailio's parameter `address_file`: a line is
    /// group, address and, if need be, mask, port and tag, with blanks between; `#` starts a comment. The database is not asked
    /// for addresses then.
    ///
    /// A line that can't be used is left out and named. A file that has lines but not one that can be used is an error, and so
    /// leaves the table that serves as it is. Kamailio refuses a file for one bad line, and takes group 0, which is refused here.
    #[must_use]
    pub fn with_address_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.address_file = Some(AddressFile::new(file.into()));
        self
    }

    /// Its URL.
    pub fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    /// The names of its tables and columns.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The file in place of the table of addresses.
    pub fn address_file(&self) -> Option<&Path> {
        self.address_file.as_ref().map(AddressFile::path)
    }

    /// Where the rows about addresses come from, in words.
    pub fn address_source(&self) -> String {
        match &self.address_file {
            Some(file) => file.to_string(),
            None => self.url.to_string(),
        }
    }

    /// Whether rows can be added and removed here.
    ///
    /// # Errors
    /// When they are in a file, which people write.
    pub fn must_be_a_table(&self) -> Result<(), DatabaseError> {
        match &self.address_file {
            Some(file) => Err(DatabaseError::IsFile {
                file: file.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// Opens a connection, looks for the table and its version, and closes it again. A file of SQLite that is not there is made,
    /// with its tables; nothing is ever made in MySQL.
    ///
    /// # Errors
    /// When the database cannot be reached or the table is not the one that is expected.
    pub async fn check(&self) -> Result<(), DatabaseError> {
        if let Some(file) = &self.address_file {
            return file.load().map(drop);
        }
        let mut link = self.open(Absent::Make).await?;
        self.check_address_version(&mut link).await?;
        link.close().await;
        Ok(())
    }

    /// Makes a file of SQLite that is not there, with its tables; nothing is ever made in MySQL. A load of the table of addresses does
    /// the same, but not where a file serves in its place.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub async fn make(&self) -> Result<(), DatabaseError> {
        if let DatabaseUrl::Sqlite(_) = &self.url {
            self.open(Absent::Make).await?.close().await;
        }
        Ok(())
    }

    /// Adds a row (Kamailio: `kamctl address add`), unless a load would skip it.
    ///
    /// # Errors
    /// When the row cannot be used, the rows are in a file, or the database fails.
    pub async fn add(&self, row: &NewRow) -> Result<Option<RowWarning>, AddError> {
        self.must_be_a_table()?;
        let warning = row.check()?;
        let mut link = self.open(Absent::Make).await?;
        self.check_address_version(&mut link).await?;
        self.be_strict(&mut link).await?;
        self.insert(&mut link, std::slice::from_ref(row)).await?;
        link.close().await;
        Ok(warning)
    }

    /// Removes all rows of this group and address, whatever mask and port they have (Kamailio: `kamctl address rm`). The number
    /// of rows removed.
    ///
    /// # Errors
    /// When the rows are in a file, or the database fails.
    pub async fn remove(&self, group: i64, ip_addr: &str) -> Result<u64, DatabaseError> {
        self.must_be_a_table()?;
        let mut link = self.open(Absent::Refuse).await?;
        macro_rules! delete {
            ($link:expr) => {
                sqlx::query(self.schema.address.delete())
                    .bind(group)
                    .bind(ip_addr)
                    .execute($link)
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
        match &self.address_file {
            Some(file) => file.each_stored(each),
            None => {
                self.each_text_row(Absent::Refuse, |row| each(row.to_stored()))
                    .await
            }
        }
    }

    /// Passes all rows on as they arrive, each as it can be added to a table elsewhere; a row that a load would skip comes as its
    /// error.
    ///
    /// # Errors
    /// When the database fails; some rows may have been passed on then.
    pub async fn each_new_row(
        &self,
        mut each: impl FnMut(Result<NewRow, RowError>),
    ) -> Result<(), DatabaseError> {
        if let Some(file) = &self.address_file {
            return file.each_new_row(each);
        }
        let names = &self.schema.address;
        self.each_text_row(Absent::Refuse, |row| {
            let read = row
                .read()
                .and_then(|row| row.validate().map(|_| row.into()));
            each(read.map_err(|error| RowError {
                place: names.place(error.id, error.column),
                ..error
            }));
        })
        .await
    }

    /// Number of rows, good and bad.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count(&self) -> Result<u64, DatabaseError> {
        if self.address_file.is_some() {
            let mut count = 0;
            self.each_row(|_| count += 1).await?;
            return Ok(count);
        }
        let mut link = self.open(Absent::Refuse).await?;
        let count = self.schema.address.count();
        let count: i64 = match &mut link {
            Link::MySql(link) => self.run(sqlx::query_scalar(count).fetch_one(link)).await?,
            Link::Sqlite(link) => self.run(sqlx::query_scalar(count).fetch_one(link)).await?,
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
                let opened = self.open_sqlite(path, is_there);
                let opened = timeout(CONNECT + BUSY, opened).await;
                opened.map(|opened| opened.map(Link::Sqlite))
            }
        };
        match opened {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(explain::unreachable(&self.url, &error)),
            Err(_elapsed) => Err(explain::no_answer(&self.url, CONNECT)),
        }
    }

    /// Opens the file; makes it with its tables when it is not there.
    async fn open_sqlite(
        &self,
        path: &Path,
        is_there: bool,
    ) -> Result<SqliteConnection, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY)
            .row_buffer_size(ROWS_AHEAD)
            .create_if_missing(!is_there)
            .disable_statement_logging();
        let mut link = SqliteConnection::connect_with(&options).await?;
        // SQLite reads on a thread of its own, which would else run on for as long as rows are taken off it.
        let give_way = || {
            turns::give_way();
            true
        };
        let mut handle = link.lock_handle().await?;
        handle.set_progress_handler(turns::INSTRUCTIONS, give_way);
        drop(handle);
        if !is_there {
            migrate::run_sqlite(&mut link, &migrate::all(&self.schema, Engine::Sqlite)).await?;
        }
        Ok(link)
    }

    async fn check_address_version(&self, link: &mut Link) -> Result<(), DatabaseError> {
        let table = &self.schema.address.table;
        self.check_version(link, table, ADDRESS_VERSION).await
    }

    pub(crate) fn failed(&self, error: &sqlx::Error) -> DatabaseError {
        explain::failed(&self.url, &self.schema, error)
    }
}

impl NewRow {
    /// Whether a load would use the row and the table can hold it, and what a load would warn of.
    ///
    /// # Errors
    /// Names the column, without a place.
    pub fn check(&self) -> Result<Option<RowWarning>, RowError> {
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

impl From<Row<'_>> for NewRow {
    fn from(row: Row<'_>) -> Self {
        Self {
            group: row.group,
            ip_addr: row.ip_addr.to_owned(),
            mask: row.mask,
            port: row.port,
            tag: row.tag.map(str::to_owned),
        }
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

fn fits(column: &'static str, text: &str, most: usize) -> Result<(), RowError> {
    let length = text.chars().count();
    if length > most {
        let fault = format!("has {length} characters");
        let mend = format!("keep to {most}: the column holds no more");
        return Err(Finding::text(column, text, &fault, &mend).error(0));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
