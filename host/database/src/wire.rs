//! The connections of the drivers.

use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Error};
use tokio::time::timeout;

use crate::file_id::FileId;

/// How long the end of a connection may take.
const CLOSE: Duration = Duration::from_secs(1);

/// What a connection keeps while nobody has it.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The runtime that drives it.
    pub(crate) runtime: tokio::runtime::Id,
    /// The file that was opened. None for a server, and for a file that was replaced meanwhile.
    pub(crate) file: Option<FileId>,
    /// Settings that it has already.
    pub(crate) settings: Vec<&'static str>,
}

/// The connection of a driver.
pub(crate) enum Wire {
    MySql(Box<MySqlConnection>),
    Postgres(Box<PgConnection>),
    Sqlite(Box<SqliteConnection>),
}

impl Wire {
    /// Whether the other end is still there.
    pub(crate) async fn ping(&mut self) -> Result<(), Error> {
        match self {
            Self::MySql(link) => link.ping().await,
            Self::Postgres(link) => link.ping().await,
            Self::Sqlite(link) => link.ping().await,
        }
    }

    pub(crate) async fn close(self) {
        // The server notices either way; this is only politer.
        let _closed = match self {
            Self::MySql(link) => timeout(CLOSE, link.close()).await,
            Self::Postgres(link) => timeout(CLOSE, link.close()).await,
            Self::Sqlite(link) => timeout(CLOSE, link.close()).await,
        };
    }
}

/// Lets who waits for this core have it first: Linux lets who runs finish his turn, which is longer than a request may wait.
pub(crate) fn give_way() {
    std::thread::yield_now();
}
