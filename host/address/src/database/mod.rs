//! Sources of the rows: MySQL, MariaDB, PostgreSQL or SQLite with Kamailio's tables, or a file that replaces the address table.
//!
//! Every column is requested as text and parsed here. A changed schema (a text column for the mask, a NULL) therefore causes an error that
//! names row and column, instead of a silent 0, and numbers are not truncated to the driver's types.

mod address_file;
mod changes;
pub mod columns;
mod error;
mod filter;
mod import;
mod load;
mod loader;
mod loading;
mod one_row;
mod page;
mod rows;
mod statements;
mod trusted;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_database::{ADDRESS_VERSION, Connections, Link, Value};
pub use portcullis_database::{
    AddressNames, ChangeSource, DatabaseUrl, DatabaseUrls, Failure, Look, MigrationAction,
    MigrationStep, Name, NameError, Schema, ServerUrl, SslMode, TrustedNames, UrlError,
};

pub(crate) use address_file::entries;
pub use changes::{RowChanges, RowsChanged};
pub use error::{AddError, DatabaseError};
pub use filter::{Cursor, CursorError, RowFilter};
pub use import::{Imported, RowBound};
pub use loading::Loaded;
pub use page::RowPage;
pub use rows::{MaskError, NewRow, Prefix, StoredRow, network};
pub use trusted::{LoadedTrusted, NewTrusted, StoredTrusted};
pub use watch::Watcher;

use address_file::AddressFile;
use statements::AddressStatements;

use crate::pattern::DEFAULT_PATTERN_MEMORY;
use crate::row::{RowError, RowWarning};

/// How long the database may take to respond, or to send the next row.
const STALL: Duration = Duration::from_secs(10);

/// A database with the tables of Kamailio's `permissions` module. Each operation takes one of its connections.
///
/// The address rows may come from a file that replaces the table; see [`with_address_file`](Self::with_address_file).
#[derive(Clone, Debug)]
pub struct Database {
    connections: Connections,
    schema: Arc<Schema>,
    address_file: Option<AddressFile>,
    pattern_memory: usize,
}

/// What to do about a missing SQLite file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Create it with its tables.
    Make,
    /// Fail.
    Refuse,
}

impl Database {
    /// Creates a database with this URL, or on these connections, with Kamailio's names of tables and columns. Nothing is opened yet.
    pub fn new(connections: impl Into<Connections>) -> Self {
        Self {
            connections: connections.into(),
            schema: Arc::default(),
            address_file: None,
            pattern_memory: DEFAULT_PATTERN_MEMORY,
        }
    }

    /// Keeps a few connections open: for a host that checks its tables every second.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.connections = Connections::kept(self.connections.urls().clone());
        self
    }

    /// Limits the memory of the patterns of all trusted peers, in bytes. Rows above the limit are skipped and reported.
    #[must_use]
    pub fn with_pattern_memory(mut self, bytes: usize) -> Self {
        self.pattern_memory = bytes;
        self
    }

    /// Sets other names of tables and columns.
    #[must_use]
    pub fn with_schema(mut self, schema: Schema) -> Self {
        self.schema = Arc::new(schema);
        self
    }

    /// Sets a file that replaces the address table, in the format of Kamailio's parameter `address_file`: a line is group, address and,
    /// optionally, mask, port and tag, separated by blanks; `#` begins a comment. The database is then not queried for addresses.
    ///
    /// An invalid line is skipped and reported. A file that has lines but no valid one is an error, so that the current table stays.
    /// Kamailio refuses a file with one invalid line, and accepts group 0, which is refused here.
    #[must_use]
    pub fn with_address_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.address_file = Some(AddressFile::new(file.into()));
        self
    }

    /// Returns the URL of the server in use, or of the one that is tried first; that of the file.
    pub fn url(&self) -> &DatabaseUrl {
        self.connections.url()
    }

    /// Returns the connections.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Returns the names of tables and columns.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Returns the file that replaces the address table.
    pub fn address_file(&self) -> Option<&Path> {
        self.address_file.as_ref().map(AddressFile::path)
    }

    /// Describes the source of the address rows.
    pub fn address_source(&self) -> String {
        match &self.address_file {
            Some(file) => file.to_string(),
            None => self.url().to_string(),
        }
    }

    /// Checks that address rows can be added and removed.
    ///
    /// # Errors
    /// If they are in a file, which commands do not change.
    pub fn must_be_a_table(&self) -> Result<(), DatabaseError> {
        match &self.address_file {
            Some(file) => Err(DatabaseError::IsFile {
                file: file.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// Opens a connection, checks the table and its version, and closes the connection. A missing SQLite file is created with its tables;
    /// nothing is created in MySQL and PostgreSQL.
    ///
    /// # Errors
    /// If the database is unreachable, or the table is not the expected one.
    pub async fn check(&self) -> Result<(), DatabaseError> {
        if let Some(file) = &self.address_file {
            return file.load().map(drop);
        }
        let mut link = self.open(Absent::Make).await?;
        self.check_address_version(&mut link).await?;
        link.release().await;
        Ok(())
    }

    /// Creates a missing SQLite file with its tables; nothing is created in MySQL and PostgreSQL. A load of the address table does the
    /// same, except where a file replaces the table.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub async fn make(&self) -> Result<(), DatabaseError> {
        if self.url().file().is_some() {
            self.open(Absent::Make).await?.release().await;
        }
        Ok(())
    }

    /// Returns what a migration would do. Changes nothing, and creates no file.
    ///
    /// # Errors
    /// If the database is unreachable.
    pub async fn migration(&self) -> Result<Vec<MigrationStep>, DatabaseError> {
        Ok(self.connections.migration(&self.schema).await?)
    }

    /// Creates Kamailio's tables `version`, `address` and `trusted`, with the names of the [`schema`](Self::schema), and our own tables for
    /// policies and tenants, where they are missing. An existing table is never changed, nor is its row in `version`. Returns what was
    /// done.
    ///
    /// # Errors
    /// If the database is unreachable, or denies it.
    pub async fn migrate(&self) -> Result<Vec<MigrationStep>, DatabaseError> {
        Ok(self.connections.migrate(&self.schema).await?)
    }

    /// Like [`Database::migrate`], without the result.
    ///
    /// # Errors
    /// See [`migrate`](Self::migrate).
    pub async fn create_tables(&self) -> Result<(), DatabaseError> {
        self.migrate().await.map(drop)
    }

    /// Adds a row (Kamailio: `kamctl address add`), unless a load would skip it.
    ///
    /// # Errors
    /// If the row is invalid, the rows are in a file, or the database fails.
    pub async fn add(&self, row: &NewRow) -> Result<Option<RowWarning>, AddError> {
        let (_id, warning) = self.add_row(row).await?;
        Ok(warning)
    }

    /// Removes all rows of this group and address, whatever their masks and ports (Kamailio: `kamctl address rm`). Returns the number of
    /// rows removed.
    ///
    /// # Errors
    /// If the rows are in a file, or the database fails.
    pub async fn remove(&self, group: i64, ip_addr: &str) -> Result<u64, DatabaseError> {
        self.must_be_a_table()?;
        let delete = self.statements().delete();
        self.change(&delete, &[group.into(), ip_addr.into()]).await
    }

    /// Removes all rows of this group with the address and mask of this network, and those in which another tool has written the network in
    /// CIDR form, which no load uses. Returns the number of rows removed.
    ///
    /// # Errors
    /// See [`remove`](Self::remove).
    pub async fn remove_network(
        &self,
        group: i64,
        ip_addr: &str,
        bits: i64,
    ) -> Result<u64, DatabaseError> {
        self.must_be_a_table()?;
        let cidr = format!("{ip_addr}/{bits}");
        let values = [group.into(), ip_addr.into(), bits.into(), (&cidr).into()];
        let delete = self.statements().delete_network();
        self.change(&delete, &values).await
    }

    /// Returns all rows in the order of a load. For tables that may be large, use [`each_row`](Self::each_row).
    ///
    /// # Errors
    /// If the database fails.
    pub async fn rows(&self) -> Result<Vec<StoredRow>, DatabaseError> {
        let mut rows = Vec::new();
        self.each_row(|row| rows.push(row)).await?;
        Ok(rows)
    }

    /// Passes all rows to `each` as they arrive, in the order of a load.
    ///
    /// # Errors
    /// If the database fails. Some rows may have been passed by then.
    pub async fn each_row(&self, mut each: impl FnMut(StoredRow)) -> Result<(), DatabaseError> {
        match &self.address_file {
            Some(file) => file.each_stored(each),
            None => {
                self.each_text_row(Absent::Refuse, |row| each(row.stored().into()))
                    .await
            }
        }
    }

    /// Passes all rows to `each` as they arrive, in the form in which they can be added to another table, and rows that a load would skip
    /// as their errors.
    ///
    /// # Errors
    /// If the database fails. Some rows may have been passed by then.
    pub async fn each_new_row(
        &self,
        mut each: impl FnMut(Result<NewRow, RowError>),
    ) -> Result<(), DatabaseError> {
        if let Some(file) = &self.address_file {
            return file.each_new_row(each);
        }
        let names = &self.schema.address;
        self.each_text_row(Absent::Refuse, |row| {
            let read = loading::read(&row);
            let read = read.and_then(|row| row.validate().map(|_| row.into()));
            each(read.map_err(|error| RowError {
                place: names.place(error.id, error.column),
                ..error
            }));
        })
        .await
    }

    /// Returns the number of rows, valid and invalid.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn count(&self) -> Result<u64, DatabaseError> {
        if self.address_file.is_some() {
            let mut count = 0;
            self.each_row(|_| count += 1).await?;
            return Ok(count);
        }
        let mut link = self.open(Absent::Refuse).await?;
        let count = self.statements().count();
        let count = link.row(&count, &[], |row| row.integer(0)).await;
        let count = count.map_err(|failure| self.told(failure))?;
        link.release().await;
        Ok(count.flatten().unwrap_or(0).unsigned_abs())
    }

    /// Takes a connection. `absent` says what to do about a missing SQLite file.
    pub(crate) async fn open(&self, absent: Absent) -> Result<Link, DatabaseError> {
        if absent == Absent::Make && self.connections.is_absent() {
            self.migrate().await?;
        }
        Ok(self.connections.take_existing(STALL).await?)
    }

    /// Executes a statement that deletes rows, and returns their number.
    async fn change(&self, statement: &str, values: &[Value<'_>]) -> Result<u64, DatabaseError> {
        let changed = self.connections.delete_rows(STALL, statement, values);
        changed.await.map_err(|failure| self.told(failure))
    }

    async fn check_address_version(&self, link: &mut Link) -> Result<(), DatabaseError> {
        let (schema, table) = (&self.schema, &self.schema.address.table);
        Ok(link.check_version(schema, table, ADDRESS_VERSION).await?)
    }

    fn statements(&self) -> AddressStatements<'_> {
        AddressStatements {
            names: &self.schema.address,
            dialect: self.connections.dialect(),
        }
    }

    /// Converts the failure of a statement on our tables. If a column is missing, the error lists the required columns.
    fn told(&self, failure: Failure) -> DatabaseError {
        failure.with_columns(&self.schema).into()
    }
}

#[cfg(test)]
mod tests;
