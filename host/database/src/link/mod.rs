//! One connection, and the statements run over it.

mod version;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Decode, Error, Executor as _, Row as _, ValueRef as _};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::dialect::driver_of;
use crate::health::Health;
use crate::pool::{Patience, Shared};
use crate::wire::{Origin, Wire, give_way};
use crate::{DatabaseUrl, Dialect, Failure, Name};

pub use version::{ADDRESS_VERSION, DISPATCHER_VERSION, TRUSTED_VERSION};

/// Time limit for the position after a write.
const POSITION: Duration = Duration::from_secs(1);

/// Rows after which a reading thread yields: each row takes most of a microsecond.
const ROWS: u64 = 64;

/// A connection. Its statements are written as described at [`Dialect::statement`]. [Release](Self::release) it when the work is done; a
/// connection that is dropped instead is closed, and its open transaction is rolled back.
pub struct Link {
    pub(crate) wire: Wire,
    pub(crate) origin: Origin,
    patience: Patience,
    /// The statement that ends the open transaction or lock.
    open: Option<&'static str>,
    /// Whether something may have been written.
    has_written: bool,
    pub(crate) shared: Arc<Shared>,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// A value of a statement. A NULL has the type of its column, because some databases require it.
#[derive(Clone, Copy, Debug)]
pub enum Value<'v> {
    /// A number.
    Integer(Option<i64>),
    /// A text.
    Text(Option<&'v str>),
    /// Bytes.
    Bytes(&'v [u8]),
}

/// A row of the result of a statement with values.
pub struct Record(RecordOf);

enum RecordOf {
    MySql(MySqlRow),
    Postgres(PgRow),
    Sqlite(SqliteRow),
}

/// A column that does not have the expected type.
#[derive(Debug)]
pub struct ReadError(Error);

/// One column of a row, as text.
#[derive(Clone, Copy, Debug, Hash)]
pub enum Column<'r> {
    /// NULL.
    Null,
    /// A text, or the text form of another value.
    Text(&'r str),
    /// Not UTF-8.
    Bytes,
}

/// How many rows of a table are written as a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// In a transaction.
    Transaction,
    /// Its engine has no transactions (MyISAM, Aria). Nobody can read it until the write is done, but the write cannot be rolled back.
    Lock,
}

/// Runs the same code with the connection of each driver; `Db` is its type in sqlx.
macro_rules! on {
    ($wire:expr, $link:ident => $work:expr) => {
        match $wire {
            Wire::MySql($link) => {
                // Not every use needs the name.
                #[allow(dead_code)]
                type Db = sqlx::MySql;
                $work
            }
            Wire::Postgres($link) => {
                #[allow(dead_code)]
                type Db = sqlx::Postgres;
                $work
            }
            Wire::Sqlite($link) => {
                #[allow(dead_code)]
                type Db = sqlx::Sqlite;
                $work
            }
        }
    };
}

/// The same for a row of each driver.
macro_rules! on_row {
    ($record:expr, $row:ident => $work:expr) => {
        match &$record.0 {
            RecordOf::MySql($row) => $work,
            RecordOf::Postgres($row) => $work,
            RecordOf::Sqlite($row) => $work,
        }
    };
}

impl Link {
    pub(crate) fn new(
        wire: Wire,
        origin: Origin,
        limit: Duration,
        shared: Arc<Shared>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            wire,
            origin,
            patience: Patience::for_each(limit),
            open: None,
            has_written: false,
            shared,
            permit,
        }
    }

    /// The server that this is a connection to, or the file.
    pub fn url(&self) -> &DatabaseUrl {
        self.shared.servers.url(self.origin.server)
    }

    /// The SQL dialect of this database.
    pub fn dialect(&self) -> &'static dyn Dialect {
        driver_of(self.url())
    }

    /// Changes the time limit for each answer, and for each row.
    pub fn set_limit(&mut self, limit: Duration) {
        self.patience = Patience::for_each(limit);
    }

    /// Sets a time limit for all statements from now on together, in place of one for each of them.
    pub fn set_limit_of_all(&mut self, limit: Duration) {
        self.patience = Patience::for_all(limit);
    }

    /// Whether a transaction or lock is open.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Runs statements without values; returns the number of changed rows.
    ///
    /// # Errors
    /// When one of them fails, or exceeds the time limit.
    pub async fn run(&mut self, sql: &str) -> Result<u64, Failure> {
        let Self {
            wire,
            origin,
            shared,
            patience,
            ..
        } = self;
        let server = origin.server;
        let sql = sqlx::raw_sql(AssertSqlSafe(
            driver_of(shared.servers.url(server)).statement(sql),
        ));
        on!(wire, link => {
            let done = shared.within(server, *patience, link.execute(sql)).await?;
            Ok(done.rows_affected())
        })
    }

    /// Runs a statement with its values; returns the number of changed rows.
    ///
    /// # Errors
    /// When it fails, or exceeds the time limit.
    pub async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, Failure> {
        let Self {
            wire,
            origin,
            shared,
            patience,
            has_written,
            ..
        } = self;
        let server = origin.server;
        let sql = AssertSqlSafe(driver_of(shared.servers.url(server)).statement(sql));
        *has_written = true;
        on!(wire, link => {
            let query = bind::<Db>(sqlx::query(sql), values);
            let done = shared.within(server, *patience, query.execute(&mut **link)).await?;
            Ok(done.rows_affected())
        })
    }

    /// The rows of a query with its values.
    ///
    /// # Errors
    /// When it fails, exceeds the time limit, or a row cannot be decoded.
    pub async fn rows<T>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        read: impl Fn(&Record) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, Failure> {
        let Self {
            wire,
            origin,
            shared,
            patience,
            ..
        } = self;
        let server = origin.server;
        let sql = AssertSqlSafe(driver_of(shared.servers.url(server)).statement(sql));
        let records: Vec<Record> = on!(wire, link => {
            let query = bind::<Db>(sqlx::query(sql), values);
            let rows = shared.within(server, *patience, query.fetch_all(&mut **link)).await?;
            rows.into_iter().map(Record::from).collect()
        });
        let read = records.iter().map(read).collect::<Result<_, _>>();
        read.map_err(|ReadError(error)| Failure::of(self.url(), &error))
    }

    /// The first row of a query with its values, if there is one.
    ///
    /// # Errors
    /// As for [`rows`](Self::rows).
    pub async fn row<T>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        read: impl Fn(&Record) -> Result<T, ReadError>,
    ) -> Result<Option<T>, Failure> {
        let rows = self.rows(sql, values, read).await?;
        Ok(rows.into_iter().next())
    }

    /// Passes on the rows of a query without values as they arrive, each column as text: the query uses [`Dialect::text`].
    ///
    /// # Errors
    /// When it fails, or a row exceeds the time limit; some rows may have been passed on by then.
    pub async fn each<const N: usize>(
        &mut self,
        sql: &str,
        mut each: impl FnMut([Column<'_>; N]),
    ) -> Result<(), Failure> {
        let Self {
            wire,
            origin,
            shared,
            patience,
            ..
        } = self;
        let server = origin.server;
        let sql = sqlx::raw_sql(AssertSqlSafe(
            driver_of(shared.servers.url(server)).statement(sql),
        ));
        let mut number: u64 = 0;
        on!(wire, link => {
            let mut rows = link.fetch(sql);
            while let Some(row) = shared.next(server, *patience, &mut rows).await? {
                number += 1;
                if number.is_multiple_of(ROWS) {
                    give_way();
                }
                each(std::array::from_fn(|at| column::<Db>(row.try_get_raw(at))));
            }
        });
        Ok(())
    }

    /// Begins a transaction that reads one state of the database, independent of concurrent writes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin_read(&mut self) -> Result<(), Failure> {
        self.begin(self.dialect().begin_read(), "COMMIT").await
    }

    /// Begins a transaction that writes. With `alone`, the table is locked against other writers until the end, where the database would
    /// not make writers of its rows wait for each other.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin_write(&mut self, alone: Option<&Name>) -> Result<(), Failure> {
        self.begin(self.dialect().begin_write(), "COMMIT").await?;
        match alone.and_then(|table| self.dialect().hold(table)) {
            Some(hold) => self.run(&hold).await.map(drop),
            None => Ok(()),
        }
    }

    /// Begins to write many rows of a table as a unit: a value that does not fit its column is an error.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin_whole(&mut self, table: &Name) -> Result<Whole, Failure> {
        self.be_strict().await?;
        let whole = self.whole_of(table).await?;
        match whole {
            Whole::Transaction => self.begin_write(None).await?,
            Whole::Lock => {
                let lock = format!("LOCK TABLES {} WRITE", table.quoted());
                self.begin(&lock, "UNLOCK TABLES").await?;
            }
        }
        Ok(whole)
    }

    /// How rows of a table can be written as a unit. Must be called outside a transaction.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn whole_of(&mut self, table: &Name) -> Result<Whole, Failure> {
        let mut whole = Whole::Transaction;
        if let Some(ask) = self.dialect().transactions(table) {
            let answer = |[answer]: [Column<'_>; 1]| {
                if matches!(answer, Column::Text("NO")) {
                    whole = Whole::Lock;
                }
            };
            self.each(&ask, answer).await?;
        }
        Ok(whole)
    }

    /// Makes the open transaction wait for others of this table for which this was called, and makes later ones wait until it ends.
    ///
    /// # Errors
    /// When the database fails, or the others take too long.
    pub async fn be_alone(&mut self, table: &Name) -> Result<(), Failure> {
        if let Some(hold) = self.dialect().hold(table) {
            return self.run(&hold).await.map(drop);
        }
        let Some(turn) = self.dialect().turn() else {
            return Ok(());
        };
        let mut is_taken = false;
        let take = |[answer]: [Column<'_>; 1]| is_taken = matches!(answer, Column::Text("1"));
        self.each(turn.take, take).await?;
        if !is_taken {
            let cause = "other connections are adding rows for too long; try again later";
            return Err(Failure::Conflict {
                url: self.url().to_string(),
                cause: cause.to_owned(),
            });
        }
        self.open = Some(turn.commit);
        Ok(())
    }

    /// Commits the transaction.
    ///
    /// # Errors
    /// When the database fails: then nothing was written.
    pub async fn commit(&mut self) -> Result<(), Failure> {
        let Some(end) = self.open else {
            return Ok(());
        };
        self.run(end).await?;
        self.open = None;
        Ok(())
    }

    /// Makes the connection refuse values that it would otherwise truncate to fit their column.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn be_strict(&mut self) -> Result<(), Failure> {
        match self.dialect().strict() {
            Some(strict) => self.set_once(strict).await,
            None => Ok(()),
        }
    }

    /// Returns the connection to the pool, which keeps or closes it. An uncommitted transaction is rolled back.
    pub async fn release(mut self) {
        let is_open = self.is_open();
        if self.has_written && !is_open {
            self.note_position().await;
        }
        let Self {
            wire,
            origin,
            shared,
            permit,
            ..
        } = self;
        shared.take_back(wire, origin, is_open, permit).await;
    }

    /// Makes a setting, unless the connection has it already.
    pub(crate) async fn set_once(&mut self, setting: &'static str) -> Result<(), Failure> {
        if self.origin.settings.contains(&setting) {
            return Ok(());
        }
        self.run(setting).await?;
        self.origin.settings.push(setting);
        Ok(())
    }

    /// The same for a setting that some servers do not know.
    pub(crate) async fn try_once(&mut self, setting: &'static str) -> Result<(), Failure> {
        match self.set_once(setting).await {
            Err(Failure::Failed { .. }) => {
                self.origin.settings.push(setting);
                Ok(())
            }
            done => done,
        }
    }

    /// Notes how far a cluster is after a write, so that the next read is not from a server that lacks it.
    async fn note_position(&mut self) {
        let servers = &self.shared.servers;
        if !servers.urls().is_cluster() {
            return;
        }
        let asked = Health::ask(&mut self.wire, &mut self.origin.kind);
        if let Ok(Ok(health)) = timeout(POSITION, asked).await
            && let Some(position) = health.position
        {
            servers.raise(&position);
        }
    }

    async fn begin(&mut self, begin: &str, end: &'static str) -> Result<(), Failure> {
        self.run(begin).await?;
        self.open = Some(end);
        Ok(())
    }
}

impl Record {
    /// A text column, possibly NULL.
    ///
    /// # Errors
    /// When it has another type.
    pub fn text(&self, at: usize) -> Result<Option<String>, ReadError> {
        on_row!(self, row => row.try_get(at)).map_err(ReadError)
    }

    /// A number column, possibly NULL.
    ///
    /// # Errors
    /// When it has another type.
    pub fn integer(&self, at: usize) -> Result<Option<i64>, ReadError> {
        // PostgreSQL's driver decodes a number only with its exact type.
        if let RecordOf::Postgres(row) = &self.0
            && let Ok(number) = row.try_get::<Option<i32>, _>(at)
        {
            return Ok(number.map(i64::from));
        }
        on_row!(self, row => row.try_get(at)).map_err(ReadError)
    }

    /// A column that the query returns as text; see [`Dialect::as_text`].
    pub fn column(&self, at: usize) -> Column<'_> {
        match &self.0 {
            RecordOf::MySql(row) => column::<sqlx::MySql>(row.try_get_raw(at)),
            RecordOf::Postgres(row) => column::<sqlx::Postgres>(row.try_get_raw(at)),
            RecordOf::Sqlite(row) => column::<sqlx::Sqlite>(row.try_get_raw(at)),
        }
    }

    /// A column of bytes.
    ///
    /// # Errors
    /// When it has another type, or is NULL.
    pub fn bytes(&self, at: usize) -> Result<Vec<u8>, ReadError> {
        on_row!(self, row => row.try_get(at)).map_err(ReadError)
    }
}

impl From<MySqlRow> for Record {
    fn from(row: MySqlRow) -> Self {
        Self(RecordOf::MySql(row))
    }
}

impl From<PgRow> for Record {
    fn from(row: PgRow) -> Self {
        Self(RecordOf::Postgres(row))
    }
}

impl From<SqliteRow> for Record {
    fn from(row: SqliteRow) -> Self {
        Self(RecordOf::Sqlite(row))
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(Some(number))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        Self::Integer(number)
    }
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(Some(text))
    }
}

impl<'v> From<&'v String> for Value<'v> {
    fn from(text: &'v String) -> Self {
        Self::Text(Some(text))
    }
}

impl<'v> From<Option<&'v str>> for Value<'v> {
    fn from(text: Option<&'v str>) -> Self {
        Self::Text(text)
    }
}

impl<'v> From<&'v Option<String>> for Value<'v> {
    fn from(text: &'v Option<String>) -> Self {
        Self::Text(text.as_deref())
    }
}

impl<'v> From<&'v [u8]> for Value<'v> {
    fn from(bytes: &'v [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl Column<'_> {
    /// As shown to people.
    pub fn shown(self) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Text(text) => text.to_owned(),
            Self::Bytes => "(bytes)".to_owned(),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("url", self.url())
            .finish_non_exhaustive()
    }
}

/// Nothing is prepared for reuse: the table may have been replaced meanwhile, and an external pooler may use another connection of the
/// server.
fn bind<'q, DB>(
    query: sqlx::query::Query<'q, DB, DB::Arguments>,
    values: &[Value<'_>],
) -> sqlx::query::Query<'q, DB, DB::Arguments>
where
    DB: sqlx::Database + sqlx::database::HasStatementCache,
    for<'v> Option<i64>: sqlx::Encode<'v, DB> + sqlx::Type<DB>,
    for<'v> Option<&'v str>: sqlx::Encode<'v, DB> + sqlx::Type<DB>,
    for<'v> &'v [u8]: sqlx::Encode<'v, DB> + sqlx::Type<DB>,
{
    let bound = values.iter().fold(query, |query, value| match *value {
        Value::Integer(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Bytes(bytes) => query.bind(bytes),
    });
    bound.persistent(false)
}

fn column<'r, DB>(value: Result<DB::ValueRef<'r>, Error>) -> Column<'r>
where
    DB: sqlx::Database,
    &'r str: Decode<'r, DB>,
{
    match value {
        Ok(value) if value.is_null() => Column::Null,
        Ok(value) => Decode::decode(value).map_or(Column::Bytes, Column::Text),
        // The statement names as many columns as are read.
        Err(_) => Column::Null,
    }
}
