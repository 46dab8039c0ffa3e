//! The connections of the drivers.

use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Error};
use tokio::time::timeout;

use crate::file_id::FileId;

/// Time limit for closing a connection.
const CLOSE: Duration = Duration::from_secs(1);

/// The state of an idle connection.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The runtime that drives it.
    pub(crate) runtime: tokio::runtime::Id,
    /// The file that was opened. `None` for a server, and for a file that has been replaced meanwhile.
    pub(crate) file: Option<FileId>,
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

    pub(crate) async fn close(self) {
        // The server notices the end in any case; this only closes cleanly.
        let _closed = match self {
            Self::MySql(link) => timeout(CLOSE, link.close()).await,
            Self::Postgres(link) => timeout(CLOSE, link.close()).await,
            Self::Sqlite(link) => timeout(CLOSE, link.close()).await,
        };
    }
}

/// Yields the core to waiting threads: Linux would otherwise let this thread finish its time slice, which is longer than a request may
/// wait.
pub(crate) fn give_way() {
    std::thread::yield_now();
}
