//! Where the sets come from: the table `dispatcher` (version 4), or a file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_address::columns::{fits, number, text};
use portcullis_address::{RowError, RowWarning};
use portcullis_database::{
    Column, Connections, DISPATCHER_VERSION, Dialect, DispatcherNames, Failure, Name, ROW_ID,
    RowStatements, Schema, TextRow, Value,
};

use crate::error::DispatcherError;
use crate::file;
use crate::loading::Loading;
use crate::row::DispatcherRow;
use crate::sets::Rows;

/// How long the database may take to respond, or to send the next row.
const STALL: Duration = Duration::from_secs(10);

/// The widths of the columns in characters.
const ATTRS_WIDTH: usize = 128;
const DESCRIPTION_WIDTH: usize = 64;

/// Where the sets come from.
#[derive(Clone, Debug)]
pub struct Source {
    connections: Connections,
    schema: Arc<Schema>,
    file: Option<PathBuf>,
}

/// A row to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDestination {
    /// Column `setid`.
    pub setid: i64,
    /// Column `destination`.
    pub destination: String,
    /// Column `flags`.
    pub flags: i64,
    /// Column `priority`.
    pub priority: i64,
    /// Column `attrs`.
    pub attrs: String,
    /// Column `description`.
    pub description: String,
}

/// A row as it is stored, whatever its columns contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredDestination {
    /// Column `id`.
    pub id: Option<String>,
    /// Column `setid`.
    pub setid: Option<String>,
    /// Column `destination`.
    pub destination: Option<String>,
    /// Column `flags`.
    pub flags: Option<String>,
    /// Column `priority`.
    pub priority: Option<String>,
    /// Column `attrs`.
    pub attrs: Option<String>,
    /// Column `description`.
    pub description: Option<String>,
}

/// The statements about the table.
struct Statements<'s> {
    names: &'s DispatcherNames,
    dialect: &'static dyn Dialect,
}

impl Source {
    /// The table of this database, under the names of the schema.
    pub fn new(connections: Connections, schema: Schema) -> Self {
        Self {
            connections,
            schema: Arc::new(schema),
            file: None,
        }
    }

    /// A file in place of the table.
    #[must_use]
    pub fn with_file(self, file: impl Into<PathBuf>) -> Self {
        let file = Some(file.into());
        Self { file, ..self }
    }

    /// The file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The connections to the database.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// The name of the table.
    pub fn table(&self) -> &Name {
        &self.schema.dispatcher.table
    }

    /// Reads all rows; `None` if the database has no such table.
    ///
    /// # Errors
    /// If the database fails, the table is not the expected one, or the file has no valid line. An invalid row is not an error: it is skipped
    /// and reported.
    pub(crate) async fn load(&self) -> Result<Option<Rows>, DispatcherError> {
        if let Some(path) = &self.file {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || file::load(&path)).await;
            let ended = |error: tokio::task::JoinError| DispatcherError::Ended(error.to_string());
            return read.map_err(ended)?.map(Some);
        }
        let mut loading = Loading::default();
        let names = &self.schema.dispatcher;
        let read = self.each(|row| {
            let other = |column: &str| names.other_name(column).map(ToString::to_string);
            let id = row.id();
            let parts = read(&row).and_then(|row| row.parts());
            let column = match &parts {
                Ok((_, Some(RowWarning { column, .. }))) | Err(RowError { column, .. }) => {
                    other(column)
                }
                Ok((_, None)) => None,
            };
            let place = |_: &str| match &column {
                Some(name) => format!("row {id}, column `{name}`"),
                None => format!("row {id}"),
            };
            loading.take(parts, Some(&place));
        });
        match read.await {
            Ok(()) => Ok(Some(loading.rows)),
            Err(DispatcherError::Database(Failure::NoTable { .. } | Failure::NoFile { .. })) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns all rows as they are stored, in the order of a load.
    ///
    /// # Errors
    /// If the database fails, or the rows are in a file.
    pub async fn rows(&self) -> Result<Vec<StoredDestination>, DispatcherError> {
        self.must_be_a_table()?;
        let mut rows = Vec::new();
        self.each(|row| rows.push(row.stored().into())).await?;
        Ok(rows)
    }

    /// Adds a row (Kamailio: `kamctl dispatcher add`), unless a load would skip it.
    ///
    /// # Errors
    /// If the row is invalid, the rows are in a file, or the database fails.
    pub async fn add(&self, row: &NewDestination) -> Result<Option<RowWarning>, DispatcherError> {
        let (_id, warning) = self.add_row(row).await?;
        Ok(warning)
    }

    /// The same. Returns also the id of the row, if the table gives ids.
    ///
    /// # Errors
    /// See [`add`](Self::add).
    pub async fn add_row(
        &self,
        row: &NewDestination,
    ) -> Result<(Option<i64>, Option<RowWarning>), DispatcherError> {
        self.must_be_a_table()?;
        let warning = row.check()?;
        if self.connections.is_absent() {
            self.connections.migrate(&self.schema).await?;
        }
        let mut link = self.connections.take_existing(STALL).await?;
        link.check_version(&self.schema, self.table(), DISPATCHER_VERSION)
            .await?;
        link.release().await;
        let statements = self.statements();
        let statements = statements.each();
        let added = self
            .connections
            .insert_row(STALL, &statements, row.values());
        let id = added.await.map_err(|failure| self.told(failure))?;
        Ok((id, warning))
    }

    /// Removes all rows of this set and destination. Returns the number of rows removed.
    ///
    /// # Errors
    /// If the rows are in a file, or the database fails.
    pub async fn remove(&self, setid: i64, destination: &str) -> Result<u64, DispatcherError> {
        self.must_be_a_table()?;
        let values = [setid.into(), destination.into()];
        let delete = self.statements().delete();
        let removed = self.connections.delete_rows(STALL, &delete, &values);
        removed.await.map_err(|failure| self.told(failure))
    }

    /// Returns the rows with this id: one at most, unless the table is a view with ids that are not unique. None if the table has no ids.
    ///
    /// # Errors
    /// If the rows are in a file, or the database fails.
    pub async fn with_id(&self, id: i64) -> Result<Vec<StoredDestination>, DispatcherError> {
        self.must_be_a_table()?;
        let mut link = self.connections.take_existing(STALL).await?;
        let has_id = self.statements().each().has_id(&mut link).await;
        let has_id = has_id.map_err(|failure| self.told(failure))?;
        link.check_version(&self.schema, self.table(), DISPATCHER_VERSION)
            .await?;
        if !has_id {
            link.release().await;
            return Ok(Vec::new());
        }
        let rows = self.statements().each().stored(&mut link, id).await;
        let rows = rows.map_err(|failure| self.told(failure))?;
        link.release().await;
        Ok(rows.into_iter().map(StoredDestination::from).collect())
    }

    /// Removes the row with this id if it is still as it was read. Returns whether it was.
    ///
    /// # Errors
    /// If the rows are in a file, or the database fails.
    pub async fn remove_row(
        &self,
        id: i64,
        read: &StoredDestination,
    ) -> Result<bool, DispatcherError> {
        self.must_be_a_table()?;
        let statements = self.statements().each();
        let (delete, values) = statements.delete_one(id, read.columns());
        let removed = self.connections.delete_rows(STALL, &delete, &values);
        let removed = removed.await.map_err(|failure| self.told(failure))?;
        Ok(removed > 0)
    }

    /// Replaces the row with this id, unless a load would skip the new one, if the row is still as it was read. Returns whether it was, and the
    /// warning of a load.
    ///
    /// # Errors
    /// If the new row is invalid, the rows are in a file, or the database fails.
    pub async fn replace_row(
        &self,
        id: i64,
        read: &StoredDestination,
        new: &NewDestination,
    ) -> Result<(bool, Option<RowWarning>), DispatcherError> {
        self.must_be_a_table()?;
        let warning = new.check()?;
        let statements = self.statements().each();
        let (read, new) = (read.columns(), new.values());
        let replaced = self
            .connections
            .replace_row(STALL, &statements, id, read, new);
        let was_as_read = replaced.await.map_err(|failure| self.told(failure))?;
        Ok((was_as_read, warning))
    }

    fn must_be_a_table(&self) -> Result<(), DispatcherError> {
        match &self.file {
            Some(file) => Err(DispatcherError::IsFile {
                file: file.display().to_string(),
            }),
            None => Ok(()),
        }
    }

    async fn each(&self, mut each: impl FnMut(TextRow<'_, 7>)) -> Result<(), DispatcherError> {
        let mut link = self.connections.take_existing(STALL).await?;
        // The table is checked before its version: without the table, its row in `version` is probably missing too.
        let has_id = self.statements().each().has_id(&mut link).await;
        let has_id = has_id.map_err(|failure| self.told(failure))?;
        link.begin_read().await?;
        link.check_version(&self.schema, self.table(), DISPATCHER_VERSION)
            .await?;
        let mut number = 0;
        let rows = self.statements().each().rows(has_id);
        let read = link.each(&rows, |columns| {
            number += 1;
            each(TextRow::new(columns, number));
        });
        read.await.map_err(|failure| self.told(failure))?;
        link.commit().await?;
        link.release().await;
        Ok(())
    }

    fn told(&self, failure: Failure) -> DispatcherError {
        failure.with_columns(&self.schema).into()
    }

    fn statements(&self) -> Statements<'_> {
        Statements {
            names: &self.schema.dispatcher,
            dialect: self.connections.dialect(),
        }
    }
}

/// The file, or the database.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => file.display().fmt(f),
            None => self.connections.url().fmt(f),
        }
    }
}

impl NewDestination {
    pub(crate) fn as_row(&self) -> DispatcherRow<'_> {
        DispatcherRow {
            id: 0,
            setid: self.setid,
            destination: &self.destination,
            flags: self.flags,
            priority: self.priority,
            attrs: &self.attrs,
            description: &self.description,
        }
    }

    /// Checks that a load would use the row, and that the columns can store it. Returns its warning, if there is one.
    ///
    /// # Errors
    /// If it is invalid. The error names the column.
    pub fn check(&self) -> Result<Option<RowWarning>, RowError> {
        let warning = self.as_row().check()?;
        fits("attrs", &self.attrs, ATTRS_WIDTH)?;
        fits("description", &self.description, DESCRIPTION_WIDTH)?;
        Ok(warning)
    }

    /// The columns in the order of the statements.
    fn values(&self) -> [Value<'_>; 6] {
        [
            self.setid.into(),
            (&self.destination).into(),
            self.flags.into(),
            self.priority.into(),
            (&self.attrs).into(),
            (&self.description).into(),
        ]
    }
}

impl StoredDestination {
    /// The columns in the order of the statements.
    fn columns(&self) -> [&Option<String>; 6] {
        [
            &self.setid,
            &self.destination,
            &self.flags,
            &self.priority,
            &self.attrs,
            &self.description,
        ]
    }
}

impl<'s> Statements<'s> {
    /// Those that each table has.
    fn each(&self) -> RowStatements<'s, 6> {
        RowStatements {
            table: &self.names.table,
            id: &ROW_ID,
            columns: self.names.columns(),
            dialect: self.dialect,
        }
    }

    /// Deletes all rows of a set and a destination.
    fn delete(&self) -> String {
        let names = self.names;
        let (setid, destination) = (names.setid.quoted(), names.destination.quoted());
        let table = names.table.quoted();
        format!("DELETE FROM {table} WHERE {setid} = ? AND {destination} = ?")
    }
}

impl From<[Option<String>; 7]> for StoredDestination {
    fn from(columns: [Option<String>; 7]) -> Self {
        let [id, setid, destination, flags, priority, attrs, description] = columns;
        Self {
            id,
            setid,
            destination,
            flags,
            priority,
            attrs,
            description,
        }
    }
}

fn read<'r>(row: &TextRow<'r, 7>) -> Result<DispatcherRow<'r>, RowError> {
    let id = row.id();
    let [_, setid, destination, flags, priority, attrs, description] = row.columns;
    Ok(DispatcherRow {
        id,
        setid: number(setid, id, "setid")?,
        destination: text(destination, id, "destination")?,
        flags: number(flags, id, "flags")?,
        priority: number(priority, id, "priority")?,
        attrs: optional(attrs, id, "attrs")?,
        description: optional(description, id, "description")?,
    })
}

fn optional<'r>(value: Column<'r>, id: i64, column: &'static str) -> Result<&'r str, RowError> {
    match value {
        Column::Null => Ok(""),
        Column::Text(_) | Column::Bytes => text(value, id, column),
    }
}
