//! The connections of the drivers.

use std::time::Duration;

use portcullis_file_id::FileId;
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _, Database, Error, Executor, Row as _};
use tokio::time::timeout;

use crate::kind::Kind;

/// Time limit for closing a connection.
const CLOSE: Duration = Duration::from_secs(1);

/// The state of an idle connection.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The runtime that drives it.
    pub(crate) runtime: tokio::runtime::Id,
    /// The file that was opened. `None` for a server, and for a file that has been replaced meanwhile.
    pub(crate) file: Option<FileId>,
    /// The server, by its place in the list; 0 for a file.
    pub(crate) server: usize,
    /// What the server is, if it was asked.
    pub(crate) kind: Option<Kind>,
    /// Settings already made on it.
    pub(crate) settings: Vec<&'static str>,
}

/// The connection of a driver.
pub(crate) enum Wire {
    MySql(Box<MySqlConnection>),
    Postgres(Box<PgConnection>),
    Sqlite(Box<SqliteConnection>),
}

impl Wire {
    /// Whether the connection still works.
    pub(crate) async fn ping(&mut self) -> Result<(), Error> {
        match self {
            Self::MySql(link) => link.ping().await,
            Self::Postgres(link) => link.ping().await,
            Self::Sqlite(link) => link.ping().await,
        }
    }

    /// The rows of a query without values, whose columns are texts.
    pub(crate) async fn texts(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        match self {
            Self::MySql(link) => texts::<sqlx::MySql>(&mut **link, sql).await,
            Self::Postgres(link) => texts::<sqlx::Postgres>(&mut **link, sql).await,
            Self::Sqlite(link) => texts::<sqlx::Sqlite>(&mut **link, sql).await,
        }
    }

    pub(crate) async fn close(self) {
        // The server notices the end in any case; this only closes cleanly.
        let _closed = match self {
            Self::MySql(link) => timeout(CLOSE, link.close()).await,
            Self::Postgres(link) => timeout(CLOSE, link.close()).await,
            Self::Sqlite(link) => timeout(CLOSE, link.close()).await,
        };
    }
}

async fn texts<'c, DB>(
    link: impl Executor<'c, Database = DB>,
    sql: &str,
) -> Result<Vec<Vec<Option<String>>>, Error>
where
    DB: Database,
    for<'r> String: sqlx::Decode<'r, DB>,
    for<'r> Option<String>: sqlx::Decode<'r, DB>,
    String: sqlx::Type<DB>,
    usize: sqlx::ColumnIndex<DB::Row>,
{
    let rows = link
        .fetch_all(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())))
        .await?;
    let texts = |row: DB::Row| {
        let columns = 0..row.len();
        let texts = columns.map(|at| row.try_get_unchecked::<Option<String>, _>(at));
        texts.collect::<Result<Vec<_>, _>>()
    };
    rows.into_iter().map(texts).collect()
}

/// Yields the core to waiting threads: Linux would otherwise let this thread finish its time slice, which is longer than a request may
/// wait.
pub(crate) fn give_way() {
    std::thread::yield_now();
}
