//! The table `trusted`: reading it for the host, and changing it for operators.

use std::hash::{DefaultHasher, Hash, Hasher};

use portcullis_database::{
    Column, Dialect, ROW_ID, RowStatements, TRUSTED_VERSION, TextRow, TrustedNames, Value,
};

use super::columns::{fits, number, text};
use super::loader::on_a_thread;
use super::loading::MOST_NAMED;
use super::{Absent, AddError, Database, DatabaseError, STALL};
use crate::pattern::PatternBudget;
use crate::row::{RowError, RowWarning, shown};
use crate::trusted::{TrustedBuilder, TrustedRow, TrustedTable};

/// The widths of the columns in characters.
const SOURCE_WIDTH: usize = 50;
const TEXT_WIDTH: usize = 64;

/// Result of a load of the table `trusted`.
#[derive(Debug, Default)]
pub struct LoadedTrusted {
    /// The table of the valid rows.
    pub table: TrustedTable,
    /// Number of disabled rows: their `proto` is `none`.
    pub ignored: u64,
    /// Number of invalid rows, which were skipped.
    pub skipped: u64,
    /// The first of these, with reasons.
    pub errors: Vec<RowError>,
    /// Number of rows that are used with a warning.
    pub warned: u64,
    /// The first of these.
    pub warnings: Vec<RowWarning>,
    /// A hash of all rows as they were read; equal tables have equal hashes.
    pub(crate) digest: u64,
}

/// A row to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTrusted {
    /// Column `src_ip`.
    pub source: String,
    /// Column `proto`.
    pub proto: String,
    /// Column `from_pattern`.
    pub from: Option<String>,
    /// Column `ruri_pattern`.
    pub ruri: Option<String>,
    /// Column `tag`.
    pub tag: Option<String>,
    /// Column `priority`.
    pub priority: i64,
}

/// A row as it is stored, whatever its columns contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredTrusted {
    /// Column `id`.
    pub id: Option<String>,
    /// Column `src_ip`.
    pub source: Option<String>,
    /// Column `proto`.
    pub proto: Option<String>,
    /// Column `from_pattern`.
    pub from: Option<String>,
    /// Column `ruri_pattern`.
    pub ruri: Option<String>,
    /// Column `tag`.
    pub tag: Option<String>,
    /// Column `priority`.
    pub priority: Option<String>,
}

/// The statements about the table.
#[derive(Clone, Copy)]
struct TrustedStatements<'s> {
    names: &'s TrustedNames,
    dialect: &'static dyn Dialect,
}

/// A load in progress.
#[derive(Default)]
struct Loading {
    builder: TrustedBuilder,
    loaded: LoadedTrusted,
    hasher: DefaultHasher,
}

impl Database {
    /// Reads the table `trusted` as a stream and builds a table, on a thread of its own.
    ///
    /// # Errors
    /// If the database fails, or the table is not the expected one; [`NoTable`](portcullis_database::Failure::NoTable) if it does not exist, as
    /// in many of Kamailio's databases. An invalid row is not an error: it is skipped and reported.
    pub async fn load_trusted(&self) -> Result<LoadedTrusted, DatabaseError> {
        let database = self.clone();
        let load = move || async move {
            let budget = PatternBudget::new(database.pattern_memory);
            let mut loading = Loading {
                builder: TrustedBuilder::with_budget(budget),
                ..Loading::default()
            };
            let names = &database.schema.trusted;
            database
                .each_trusted(|row| loading.take(&row, names))
                .await?;
            Ok(loading.finish())
        };
        on_a_thread(load).await
    }

    /// Returns all rows of the table `trusted`, in the order of a load.
    ///
    /// # Errors
    /// If the database fails, or has no such table.
    pub async fn trusted_rows(&self) -> Result<Vec<StoredTrusted>, DatabaseError> {
        let mut rows = Vec::new();
        self.each_trusted(|row| rows.push(row.stored().into()))
            .await?;
        Ok(rows)
    }

    /// Adds a row (Kamailio: `kamctl trusted add`), unless a load would skip it or there is one with the same source.
    ///
    /// # Errors
    /// If the row is invalid, there is a row with the same source, or the database fails.
    pub async fn add_trusted(&self, row: &NewTrusted) -> Result<Option<RowWarning>, AddError> {
        let (_id, warning) = self.add_trusted_row(row).await?;
        Ok(warning)
    }

    /// The same. Returns also the id of the row, if the table gives ids.
    ///
    /// # Errors
    /// See [`add_trusted`](Self::add_trusted).
    pub async fn add_trusted_row(
        &self,
        row: &NewTrusted,
    ) -> Result<(Option<i64>, Option<RowWarning>), AddError> {
        let warning = row.check()?;
        let mut link = self.open(Absent::Make).await?;
        let (schema, table) = (&self.schema, &self.schema.trusted.table);
        link.check_version(schema, table, TRUSTED_VERSION).await?;
        let statements = self.trusted_statements();
        let source = [Value::from(&row.source)];
        let count = link
            .row(&statements.count(), &source, |row| row.integer(0))
            .await;
        let count = count.map_err(|failure| self.told(failure))?;
        if count.flatten() != Some(0) {
            return Err(AddError::Exists {
                table: table.to_string(),
                source_ip: shown(&row.source),
            });
        }
        link.release().await;
        let statements = statements.each();
        let added = self
            .connections
            .insert_row(STALL, &statements, row.values());
        let id = added.await.map_err(|failure| self.told(failure))?;
        Ok((id, warning))
    }

    /// Removes all rows of this source (Kamailio: `kamctl trusted rm`). Returns the number of rows removed.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn remove_trusted(&self, source: &str) -> Result<u64, DatabaseError> {
        let delete = self.trusted_statements().delete();
        self.change(&delete, &[source.into()]).await
    }

    /// Returns the rows of the table with this id: one at most, unless the table is a view with ids that are not unique. None if the table has
    /// no ids.
    ///
    /// # Errors
    /// If the database fails, or has no such table.
    pub async fn trusted_with_id(&self, id: i64) -> Result<Vec<StoredTrusted>, DatabaseError> {
        let mut link = self.open(Absent::Refuse).await?;
        let has_id = self.trusted_statements().each().has_id(&mut link).await;
        let has_id = has_id.map_err(|failure| self.told(failure))?;
        let (schema, table) = (&self.schema, &self.schema.trusted.table);
        link.check_version(schema, table, TRUSTED_VERSION).await?;
        if !has_id {
            link.release().await;
            return Ok(Vec::new());
        }
        let rows = self.trusted_statements().each().stored(&mut link, id).await;
        let rows = rows.map_err(|failure| self.told(failure))?;
        link.release().await;
        Ok(rows.into_iter().map(StoredTrusted::from).collect())
    }

    /// Removes the row with this id if it is still as it was read. Returns whether it was.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn remove_trusted_row(
        &self,
        id: i64,
        read: &StoredTrusted,
    ) -> Result<bool, DatabaseError> {
        let statements = self.trusted_statements().each();
        let (delete, values) = statements.delete_one(id, read.columns());
        Ok(self.change(&delete, &values).await? > 0)
    }

    /// Replaces the row with this id, unless a load would skip the new one or another row has its source, if the row is still as it was read.
    /// Returns whether it was, and the warning of a load.
    ///
    /// # Errors
    /// If the new row is invalid, another row has its source, or the database fails.
    pub async fn replace_trusted_row(
        &self,
        id: i64,
        read: &StoredTrusted,
        new: &NewTrusted,
    ) -> Result<(bool, Option<RowWarning>), AddError> {
        let warning = new.check()?;
        let mut link = self.open(Absent::Refuse).await?;
        let statements = self.trusted_statements();
        if read.source.as_ref() != Some(&new.source) {
            let (count, source) = (statements.count(), [Value::from(&new.source)]);
            let count = link.row(&count, &source, |row| row.integer(0));
            let count = count.await.map_err(|failure| self.told(failure))?;
            if count.flatten() != Some(0) {
                return Err(AddError::Exists {
                    table: self.schema.trusted.table.to_string(),
                    source_ip: shown(&new.source),
                });
            }
        }
        link.release().await;
        let statements = statements.each();
        let (read, new) = (read.columns(), new.values());
        let replaced = self
            .connections
            .replace_row(STALL, &statements, id, read, new);
        let was_as_read = replaced.await.map_err(|failure| self.told(failure))?;
        Ok((was_as_read, warning))
    }

    async fn each_trusted(
        &self,
        mut each: impl FnMut(TextRow<'_, 7>),
    ) -> Result<(), DatabaseError> {
        let mut link = self.open(Absent::Refuse).await?;
        // The table is checked before its version: without the table, its row in `version` is probably missing too.
        let has_id = self.trusted_statements().each().has_id(&mut link).await;
        let has_id = has_id.map_err(|failure| self.told(failure))?;
        link.begin_read().await?;
        let (schema, table) = (&self.schema, &self.schema.trusted.table);
        link.check_version(schema, table, TRUSTED_VERSION).await?;
        let rows = self.trusted_statements().each().rows(has_id);
        let mut number = 0;
        let read = link.each(&rows, |columns| {
            number += 1;
            each(TextRow::new(columns, number));
        });
        read.await.map_err(|failure| self.told(failure))?;
        link.commit().await?;
        link.release().await;
        Ok(())
    }

    fn trusted_statements(&self) -> TrustedStatements<'_> {
        TrustedStatements {
            names: &self.schema.trusted,
            dialect: self.connections.dialect(),
        }
    }
}

impl<'s> TrustedStatements<'s> {
    /// Those that each table has.
    fn each(&self) -> RowStatements<'s, 6> {
        let names = self.names;
        RowStatements {
            table: &names.table,
            id: &ROW_ID,
            columns: [
                &names.source,
                &names.proto,
                &names.from,
                &names.ruri,
                &names.tag,
                &names.priority,
            ],
            dialect: self.dialect,
        }
    }

    /// Counts the rows of a source.
    fn count(&self) -> String {
        let (table, source) = (self.names.table.quoted(), self.names.source.quoted());
        format!("SELECT COUNT(*) FROM {table} WHERE {source} = ?")
    }

    /// Deletes all rows of a source.
    fn delete(&self) -> String {
        let (table, source) = (self.names.table.quoted(), self.names.source.quoted());
        format!("DELETE FROM {table} WHERE {source} = ?")
    }
}

impl StoredTrusted {
    /// The columns in the order of the statements.
    fn columns(&self) -> [&Option<String>; 6] {
        [
            &self.source,
            &self.proto,
            &self.from,
            &self.ruri,
            &self.tag,
            &self.priority,
        ]
    }
}

impl NewTrusted {
    /// Returns the columns in the order of an insertion.
    fn values(&self) -> [Value<'_>; 6] {
        [
            (&self.source).into(),
            (&self.proto).into(),
            (&self.from).into(),
            (&self.ruri).into(),
            (&self.tag).into(),
            self.priority.into(),
        ]
    }

    /// Checks that a load would use the row and that the table can store it. Returns its warning, if there is one.
    ///
    /// # Errors
    /// If it is invalid. The error names the column.
    pub fn check(&self) -> Result<Option<RowWarning>, AddError> {
        let row = TrustedRow {
            id: 0,
            source: &self.source,
            proto: &self.proto,
            from: self.from.as_deref(),
            ruri: self.ruri.as_deref(),
            tag: self.tag.as_deref(),
            priority: self.priority,
        };
        let warning = TrustedBuilder::default().push(row)?;
        fits("src_ip", &self.source, SOURCE_WIDTH)?;
        for (column, text) in [
            ("from_pattern", &self.from),
            ("ruri_pattern", &self.ruri),
            ("tag", &self.tag),
        ] {
            fits(column, text.as_deref().unwrap_or_default(), TEXT_WIDTH)?;
        }
        Ok(warning)
    }
}

impl Loading {
    fn take(&mut self, row: &TextRow<'_, 7>, names: &TrustedNames) {
        row.columns.hash(&mut self.hasher);
        let loaded = &mut self.loaded;
        match read(row).and_then(|row| self.builder.push(row)) {
            Ok(None) => {}
            Ok(Some(warning)) => {
                loaded.warned += 1;
                if loaded.warnings.len() < MOST_NAMED {
                    let place = names.place(warning.id, warning.column);
                    loaded.warnings.push(RowWarning { place, ..warning });
                }
            }
            Err(error) => {
                loaded.skipped += 1;
                if loaded.errors.len() < MOST_NAMED {
                    let place = names.place(error.id, error.column);
                    loaded.errors.push(RowError { place, ..error });
                }
            }
        }
    }

    fn finish(self) -> LoadedTrusted {
        LoadedTrusted {
            ignored: self.builder.ignored(),
            table: self.builder.build(),
            digest: self.hasher.finish(),
            ..self.loaded
        }
    }
}

impl From<[Option<String>; 7]> for StoredTrusted {
    fn from(columns: [Option<String>; 7]) -> Self {
        let [id, source, proto, from, ruri, tag, priority] = columns;
        Self {
            id,
            source,
            proto,
            from,
            ruri,
            tag,
            priority,
        }
    }
}

fn read<'r>(row: &TextRow<'r, 7>) -> Result<TrustedRow<'r>, RowError> {
    let id = row.id();
    let [_, source, proto, from, ruri, tag, priority] = row.columns;
    let optional = |column: Column<'r>, name| match column {
        Column::Null => Ok(None),
        Column::Text(_) | Column::Bytes => text(column, id, name).map(Some),
    };
    Ok(TrustedRow {
        id,
        source: text(source, id, "src_ip")?,
        proto: text(proto, id, "proto")?,
        from: optional(from, "from_pattern")?,
        ruri: optional(ruri, "ruri_pattern")?,
        tag: optional(tag, "tag")?,
        priority: match priority {
            Column::Null => 0,
            Column::Text(_) | Column::Bytes => number(priority, id, "priority")?,
        },
    })
}
