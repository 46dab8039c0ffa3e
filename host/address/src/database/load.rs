//! Reading the rows.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use sqlx::{Decode, Executor, Row as _, ValueRef};
use tokio::time::timeout;

use super::error::ADDRESS_VERSION;
use super::loader::on_a_thread;
use super::schema::{AddressNames, Name};
use super::statements::Engine;
use super::{Absent, Database, DatabaseError, Link, StoredRow};
use crate::row::{Row, RowError, RowWarning, shown};
use crate::table::{Table, TableBuilder};
use crate::turns;

/// Problems of each kind that a load keeps by name; the rest is only counted.
pub(super) const MOST_NAMED: usize = 100;

/// How long the database may take for the next row before a load gives up.
const STALL: Duration = Duration::from_secs(30);

/// Version and rows come from one state of the database, whatever is written meanwhile.
pub(super) const MYSQL_BEGIN: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
     START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
pub(super) const SQLITE_BEGIN: &str = "BEGIN";

/// What a load brought.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The table of the rows that can be used.
    pub table: Table,
    /// Rows that were left out.
    pub skipped: u64,
    /// The first of these, with what is wrong.
    pub errors: Vec<RowError>,
    /// Rows that are in, but probably mean something else than they should.
    pub warned: u64,
    /// The first of these.
    pub warnings: Vec<RowWarning>,
    /// A hash of all rows as they were read: equal for equal tables.
    pub(crate) digest: u64,
}

/// One row of the result, each column as text.
#[derive(Clone, Copy)]
pub(super) struct TextRow<'r> {
    columns: [Column<'r>; 6],
    /// Its place in the result, to name a row without a usable id.
    number: i64,
}

/// One column of a row.
#[derive(Clone, Copy, Hash)]
pub(super) enum Column<'r> {
    Null,
    Text(&'r str),
    /// Not UTF-8.
    Bytes,
}

/// A load under way.
#[derive(Default)]
pub(super) struct Loading {
    pub(super) builder: TableBuilder,
    loaded: Loaded,
    pub(super) hasher: DefaultHasher,
}

impl Database {
    /// Reads all rows as a stream and makes a table of them, on a thread of its own, so that a million rows hold nobody up.
    /// A file of SQLite that is not there is made, with its tables.
    ///
    /// # Errors
    /// When the database fails or the table is not the one that is expected, or the file in its place has entries and none that
    /// can be used. A row that cannot be used is no error: it is left out and named.
    pub async fn load(&self) -> Result<Loaded, DatabaseError> {
        self.load_on_a_thread(Absent::Make).await
    }

    /// The same, but a file that is not there is an error: an empty table in place of one that serves would shut everybody
    /// out.
    pub(crate) async fn load_again(&self) -> Result<Loaded, DatabaseError> {
        self.load_on_a_thread(Absent::Refuse).await
    }

    async fn load_on_a_thread(&self, absent: Absent) -> Result<Loaded, DatabaseError> {
        let database = self.clone();
        on_a_thread(move || async move { database.load_here(absent).await }).await
    }

    async fn load_here(&self, absent: Absent) -> Result<Loaded, DatabaseError> {
        if let Some(file) = &self.address_file {
            return file.load();
        }
        let names = &self.schema.address;
        let mut loading = Loading::default();
        self.each_text_row(absent, |row| loading.take(row, names))
            .await?;
        Ok(loading.finish())
    }

    pub(super) async fn each_text_row(
        &self,
        absent: Absent,
        mut each: impl FnMut(TextRow<'_>),
    ) -> Result<(), DatabaseError> {
        let mut link = self.open(absent).await?;
        match &mut link {
            Link::MySql(link) => self
                .run(link.execute(sqlx::raw_sql(MYSQL_BEGIN)))
                .await
                .map(drop)?,
            Link::Sqlite(link) => self
                .run(link.execute(sqlx::raw_sql(SQLITE_BEGIN)))
                .await
                .map(drop)?,
        }
        let names = &self.schema.address;
        self.check_version(&mut link, &names.table, ADDRESS_VERSION)
            .await?;
        let has_id = self.has_id(&mut link).await?;
        let mut number = 0;
        macro_rules! stream {
            ($link:expr, $engine:ident) => {{
                let mut rows = $link.fetch(sqlx::raw_sql(names.rows(Engine::$engine, has_id)));
                while let Some(row) = self.next(&mut rows).await? {
                    number += 1;
                    if number % turns::ROWS == 0 {
                        turns::give_way();
                    }
                    each(TextRow {
                        columns: std::array::from_fn(|at| {
                            column::<sqlx::$engine>(row.try_get_raw(at))
                        }),
                        number,
                    });
                }
            }};
        }
        match &mut link {
            Link::MySql(link) => stream!(link, MySql),
            Link::Sqlite(link) => stream!(link, Sqlite),
        }
        link.close().await;
        Ok(())
    }

    /// Kamailio refuses to start on another version, because the columns may mean something else. Here the row in `version` is
    /// looked at before every load.
    pub(super) async fn check_version(
        &self,
        link: &mut Link,
        table: &Name,
        known: i64,
    ) -> Result<(), DatabaseError> {
        macro_rules! version {
            ($link:expr, $engine:ident) => {{
                let version = self.schema.version_of(table, Engine::$engine);
                let found = self
                    .run($link.fetch_optional(sqlx::raw_sql(version)))
                    .await?;
                found.map(|row| column::<sqlx::$engine>(row.try_get_raw(0)).shown())
            }};
        }
        let found = match link {
            Link::MySql(link) => version!(link, MySql),
            Link::Sqlite(link) => version!(link, Sqlite),
        };
        match found {
            Some(version) if version.parse() == Ok(known) => Ok(()),
            found => Err(DatabaseError::Version {
                url: self.url.to_string(),
                table: table.to_string(),
                found: found.as_deref().map(shown),
                known,
                mend: self.schema.mend_version(table, known, found.is_some()),
            }),
        }
    }

    /// Whether the rows have numbers of their own. A table may go without, but not without a column that the configuration names.
    async fn has_id(&self, link: &mut Link) -> Result<bool, DatabaseError> {
        let names = &self.schema.address;
        let probe = sqlx::raw_sql(names.probe_id());
        let probed = match link {
            Link::MySql(link) => self.run(link.execute(probe)).await.map(drop),
            Link::Sqlite(link) => self.run(link.execute(probe)).await.map(drop),
        };
        match probed {
            Ok(()) => Ok(true),
            Err(DatabaseError::NoColumn { .. }) if names.id == AddressNames::default().id => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The next row, if it comes in time. A row that is there already costs no timer.
    pub(super) async fn next<T>(
        &self,
        rows: &mut (impl Stream<Item = Result<T, sqlx::Error>> + Unpin),
    ) -> Result<Option<T>, DatabaseError> {
        let next = match rows.next().now_or_never() {
            Some(next) => next,
            None => match timeout(STALL, rows.next()).await {
                Ok(next) => next,
                Err(_elapsed) => return Err(self.stalled(STALL)),
            },
        };
        next.transpose().map_err(|error| self.failed(&error))
    }

    /// A statement that takes no longer than a row may.
    pub(super) async fn run<T>(
        &self,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, DatabaseError> {
        self.run_within(STALL, statement).await
    }

    pub(super) async fn run_within<T>(
        &self,
        time: Duration,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, DatabaseError> {
        match timeout(time, statement).await {
            Ok(done) => done.map_err(|error| self.failed(&error)),
            Err(_elapsed) => Err(self.stalled(time)),
        }
    }

    fn stalled(&self, time: Duration) -> DatabaseError {
        DatabaseError::Failed {
            url: self.url.to_string(),
            cause: format!("no answer in {} s", time.as_secs()),
        }
    }
}

impl Loading {
    fn take(&mut self, row: TextRow<'_>, names: &AddressNames) {
        row.columns.hash(&mut self.hasher);
        match row.read().and_then(|row| self.builder.push(row)) {
            Ok(None) => {}
            Ok(Some(warning)) => self.warn(RowWarning {
                place: names.place(warning.id, warning.column),
                ..warning
            }),
            Err(error) => self.skip(RowError {
                place: names.place(error.id, error.column),
                ..error
            }),
        }
    }

    /// Notes a row that is in, with a warning.
    pub(super) fn warn(&mut self, warning: RowWarning) {
        self.loaded.warned += 1;
        if self.loaded.warnings.len() < MOST_NAMED {
            self.loaded.warnings.push(warning);
        }
    }

    /// Notes a row that is left out.
    pub(super) fn skip(&mut self, error: RowError) {
        self.loaded.skipped += 1;
        if self.loaded.errors.len() < MOST_NAMED {
            self.loaded.errors.push(error);
        }
    }

    pub(super) fn finish(self) -> Loaded {
        Loaded {
            table: self.builder.build(),
            digest: self.hasher.finish(),
            ..self.loaded
        }
    }
}

impl<'r> TextRow<'r> {
    pub(super) fn to_stored(self) -> StoredRow {
        let [id, group, ip_addr, mask, port, tag] = self.columns.map(|column| match column {
            Column::Null => None,
            column => Some(column.shown()),
        });
        StoredRow {
            id,
            group,
            ip_addr,
            mask,
            port,
            tag,
        }
    }

    pub(super) fn read(self) -> Result<Row<'r>, RowError> {
        let [id, group, ip_addr, mask, port, tag] = self.columns;
        let id = match id {
            Column::Text(id) => id.parse().unwrap_or(self.number),
            _ => self.number,
        };
        Ok(Row {
            id,
            group: group.number(id, "grp")?,
            ip_addr: ip_addr.text(id, "ip_addr")?,
            mask: mask.number(id, "mask")?,
            port: port.number(id, "port")?,
            tag: match tag {
                Column::Null => None,
                tag => Some(tag.text(id, "tag")?),
            },
        })
    }
}

impl<'r> Column<'r> {
    pub(super) fn number(self, id: i64, column: &'static str) -> Result<i64, RowError> {
        let text = self.text(id, column)?;
        text.parse().map_err(|_| RowError {
            id,
            place: None,
            column,
            value: shown(text),
            fault: "is not a whole number".to_owned(),
            mend: "write a number, and let the column have an integer type".to_owned(),
        })
    }

    pub(super) fn text(self, id: i64, column: &'static str) -> Result<&'r str, RowError> {
        let (value, fault, mend) = match self {
            Column::Text(text) => return Ok(text),
            Column::Null => (
                "NULL",
                "is no value",
                "write one, and declare the column NOT NULL",
            ),
            Column::Bytes => ("(bytes)", "is no text", "write it as text in UTF-8"),
        };
        Err(RowError {
            id,
            place: None,
            column,
            value: value.to_owned(),
            fault: fault.to_owned(),
            mend: mend.to_owned(),
        })
    }

    pub(super) fn shown(self) -> String {
        match self {
            Column::Null => "NULL".to_owned(),
            Column::Text(text) => text.to_owned(),
            Column::Bytes => "(bytes)".to_owned(),
        }
    }
}

pub(super) fn column<'r, E>(value: Result<E::ValueRef<'r>, sqlx::Error>) -> Column<'r>
where
    E: sqlx::Database,
    &'r str: Decode<'r, E>,
{
    match value {
        Ok(value) if value.is_null() => Column::Null,
        Ok(value) => Decode::decode(value).map_or(Column::Bytes, Column::Text),
        // The statement names as many columns as are asked for.
        Err(_) => Column::Null,
    }
}
