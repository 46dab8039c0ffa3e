//! SQLite.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Error};

use super::meaning::{Meaning, code};
use super::{Dialect, Driver};
use crate::wire::{Wire, give_way};
use crate::{DatabaseUrl, Name};

/// Time limit for locks held by another process on an SQLite file.
pub(crate) const BUSY: Duration = Duration::from_secs(5);

/// Rows that SQLite may read ahead.
const ROWS_AHEAD: usize = 1024;

/// Instructions of SQLite's virtual machine after which its thread yields: a row takes about ten.
const INSTRUCTIONS: i32 = 640;

/// SQLite.
#[derive(Debug)]
pub(crate) struct Sqlite;

impl Dialect for Sqlite {
    fn text(&self, column: &Name) -> String {
        self.as_text(&column.quoted())
    }

    fn insert_if_absent(&self, row: &str) -> String {
        format!("INSERT OR IGNORE INTO {row}")
    }

    fn begin_read(&self) -> &'static str {
        "BEGIN"
    }

    fn begin_write(&self) -> &'static str {
        "BEGIN IMMEDIATE"
    }

    /// There is one writer at a time.
    fn hold(&self, _table: &Name) -> Option<String> {
        None
    }

    fn contains(&self, column: &Name) -> String {
        format!("instr({}, ?) > 0", self.text(column))
    }

    /// Days since noon of a Monday in 4714 BC, as SQLite counts.
    fn milliseconds(&self) -> &'static str {
        "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)"
    }

    fn is_there(&self) -> &'static str {
        "SELECT COUNT(*) FROM sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE"
    }

    fn scripts(&self) -> &'static [&'static str] {
        &[
            include_str!("../../../../migrations/sqlite/0001_address.sql"),
            include_str!("../../../../migrations/sqlite/0002_trusted.sql"),
            include_str!("../../../../migrations/sqlite/0003_policies.sql"),
            include_str!("../../../../migrations/sqlite/0004_tenants.sql"),
            include_str!("../../../../migrations/sqlite/0005_audit.sql"),
            include_str!("../../../../migrations/sqlite/0006_dispatcher.sql"),
            include_str!("../../../../migrations/sqlite/0007_hosts.sql"),
            include_str!("../../../../migrations/sqlite/0008_rollouts.sql"),
        ]
    }

    fn undoes_scripts(&self) -> bool {
        true
    }
}

impl Driver for Sqlite {
    fn connect<'u>(&self, url: &'u DatabaseUrl) -> BoxFuture<'u, Result<Wire, Error>> {
        let connect = async move {
            let DatabaseUrl::Sqlite(path) = url else {
                return Err(Error::Protocol("no URL of a file".to_owned()));
            };
            open(path).await.map(|link| Wire::Sqlite(Box::new(link)))
        };
        connect.boxed()
    }

    fn mend_connecting(&self, _error: &Error) -> &'static str {
        "check the path in [database] url, and that we may read and write it and its directory"
    }

    fn meaning(&self, error: &Error, said: &str) -> Meaning {
        // SQLite has no error numbers for these.
        if let Some((_, table)) = said.split_once("no such table: ") {
            let table = table.rsplit_once('.').map_or(table, |(_, table)| table);
            return Meaning::NoTable(table.to_owned());
        }
        if said.contains("no such column") {
            return Meaning::NoColumn;
        }
        match code(error).as_deref() {
            // SQLITE_BUSY, SQLITE_BUSY_SNAPSHOT: it cannot become the writer.
            Some("5" | "517") => Meaning::Conflict,
            _ => Meaning::Other(""),
        }
    }
}

/// Opens an existing file; an empty one is a database without tables.
async fn open(path: &Path) -> Result<SqliteConnection, Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY)
        .row_buffer_size(ROWS_AHEAD)
        .disable_statement_logging();
    let mut link = SqliteConnection::connect_with(&options).await?;
    // SQLite reads on its own thread, which would otherwise run without pause while rows are consumed.
    let mut handle = link.lock_handle().await?;
    handle.set_progress_handler(INSTRUCTIONS, || {
        give_way();
        true
    });
    drop(handle);
    Ok(link)
}

/// Creates an empty file that nobody else can read, if none exists: it will contain digests of tokens. SQLite gives its companion files the
/// same mode.
pub(crate) fn make_private(path: &Path) -> std::io::Result<()> {
    let made = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path);
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}
