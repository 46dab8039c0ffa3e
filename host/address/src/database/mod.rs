//! Where operators keep the rows: MySQL, MariaDB or SQLite, with Kamailio's tables as they are, or a file in place of the table.
//!
//! Every column is asked for as text and read here. So a changed schema (a text column for the mask, a NULL) gives an error that
//! names row and column instead of a silent 0, and numbers are never cut to the driver's types.

mod address_file;
mod error;
mod import;
mod load;
mod loader;
mod loading;
mod rows;
mod statements;
mod trusted;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_database::{ADDRESS_VERSION, Connections, Link, Value};
pub use portcullis_database::{
    AddressNames, ChangeSource, DatabaseUrl, Failure, Look, MigrationAction, MigrationStep, Name,
    NameError, Schema, ServerUrl, SslMode, TrustedNames, UrlError,
};

pub(crate) use address_file::entries;
pub use error::{AddError, DatabaseError};
pub use import::Imported;
pub use loading::Loaded;
pub use rows::{NewRow, StoredRow};
pub use trusted::{LoadedTrusted, NewTrusted, StoredTrusted};
pub use watch::Watcher;

use address_file::AddressFile;
use statements::AddressStatements;

use crate::pattern::DEFAULT_PATTERN_MEMORY;
use crate::row::{RowError, RowWarning};

/// How long the database may take for an answer, or for the next row, before it is given up.
const STALL: Duration = Duration::from_secs(10);

/// A database with the tables of Kamailio's `permissions`. Each operation takes one of its connections.
///
/// The rows about addresses may come from a file in place of the table; see [`with_address_file`](Self::with_address_file).
#[derive(Clone, Debug)]
pub struct Database {
    connections: Connections,
    schema: Arc<Schema>,
    address_file: Option<AddressFile>,
    pattern_memory: usize,
}

/// What to do about a file of SQLite that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Make it, with its tables.
    Make,
    /// Fail.
    Refuse,
}

impl Database {
    /// The database at this place, or over these connections, with Kamailio's names of tables and columns. Nothing is opened yet.
    pub fn new(connections: impl Into<Connections>) -> Self {
        Self {
            connections: connections.into(),
            schema: Arc::default(),
            address_file: None,
            pattern_memory: DEFAULT_PATTERN_MEMORY,
        }
    }

    /// The same with connections of which a few are kept: for a host that looks at its tables every second.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.connections = Connections::kept(self.url().clone());
        self
    }

    /// Bounds what the patterns of all trusted peers may take, in bytes. Rows beyond that are left out and named.
    #[must_use]
    pub fn with_pattern_memory(mut self, bytes: usize) -> Self {
        self.pattern_memory = bytes;
        self
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
        self.connections.url()
    }

    /// The connections that its operations take.
    pub fn connections(&self) -> &Connections {
        &self.connections
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
            None => self.url().to_string(),
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
        link.release().await;
        Ok(())
    }

    /// Makes a file of SQLite that is not there, with its tables; nothing is ever made in MySQL. A load of the table of addresses does
    /// the same, but not where a file serves in its place.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub async fn make(&self) -> Result<(), DatabaseError> {
        if self.url().file().is_some() {
            self.open(Absent::Make).await?.release().await;
        }
        Ok(())
    }

    /// What a migration would do. Changes nothing, and makes no file.
    ///
    /// # Errors
    /// When the database can't be reached.
    pub async fn migration(&self) -> Result<Vec<MigrationStep>, DatabaseError> {
        Ok(self.connections.migration(&self.schema).await?)
    }

    /// Makes Kamailio's tables `version`, `address` and `trusted`, by the names of the [`schema`](Self::schema), and our own ones for
    /// policies and tenants, where they are absent. A table that is there is never touched, nor is its row in `version`. What was done is
    /// returned.
    ///
    /// # Errors
    /// When the database can't be reached or forbids it.
    pub async fn migrate(&self) -> Result<Vec<MigrationStep>, DatabaseError> {
        Ok(self.connections.migrate(&self.schema).await?)
    }

    /// The same, for those who need not know what was done.
    ///
    /// # Errors
    /// As for [`migrate`](Self::migrate).
    pub async fn create_tables(&self) -> Result<(), DatabaseError> {
        self.migrate().await.map(drop)
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
        link.be_strict().await.map_err(DatabaseError::from)?;
        self.insert(&mut link, std::slice::from_ref(row)).await?;
        link.release().await;
        Ok(warning)
    }

    /// Removes all rows of this group and address, whatever mask and port they have (Kamailio: `kamctl address rm`). The number
    /// of rows removed.
    ///
    /// # Errors
    /// When the rows are in a file, or the database fails.
    pub async fn remove(&self, group: i64, ip_addr: &str) -> Result<u64, DatabaseError> {
        self.must_be_a_table()?;
        let delete = self.statements().delete();
        self.change(&delete, &[group.into(), ip_addr.into()]).await
    }

    /// Removes all rows of this group whose address is that of a network and whose mask is its bits, and those in which another tool
    /// has written the network in CIDR form, which no load uses. The number of rows removed.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
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
        let count = self.statements().count();
        let count = link.row(&count, &[], |row| row.integer(0)).await;
        let count = count.map_err(|failure| self.told(failure))?;
        link.release().await;
        Ok(count.flatten().unwrap_or(0).unsigned_abs())
    }

    /// Takes a connection. A file of SQLite that is not there is made with its tables, or an error.
    pub(crate) async fn open(&self, absent: Absent) -> Result<Link, DatabaseError> {
        if absent == Absent::Make && self.connections.is_absent() {
            self.migrate().await?;
        }
        Ok(self.connections.take_existing(STALL).await?)
    }

    /// Runs one statement that changes rows; how many.
    async fn change(&self, statement: &str, values: &[Value<'_>]) -> Result<u64, DatabaseError> {
        let mut link = self.open(Absent::Refuse).await?;
        let changed = link.execute(statement, values).await;
        let changed = changed.map_err(|failure| self.told(failure))?;
        link.release().await;
        Ok(changed)
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

    /// A failure of a statement about our tables, with the columns that they need where one is missing.
    fn told(&self, failure: Failure) -> DatabaseError {
        failure.with_columns(&self.schema).into()
    }
}

#[cfg(test)]
mod tests;
