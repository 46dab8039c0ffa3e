//! What differs from one database to the other, each in one file.
//!
//! Statements are written once, with MySQL's quotes around names and `?` for each value; [`Dialect::statement`] puts them into the
//! words of a database that wants others.

mod mysql;
mod postgres;
mod sqlite;

use std::fmt;

use futures_util::future::BoxFuture;
use sqlx::Error;

use crate::failure::Meaning;
use crate::link::Wire;
use crate::{DatabaseUrl, Name};

pub(crate) use mysql::MySql;
pub(crate) use postgres::Postgres;
pub(crate) use sqlite::{FileId, Sqlite, file_id, make_private};

/// The SQL of one kind of database, and what its errors mean.
pub trait Dialect: fmt::Debug + Send + Sync {
    /// A statement that is written with MySQL's quotes and `?`, in the words of this database.
    fn statement(&self, sql: &str) -> String {
        sql.to_owned()
    }

    /// What stands around the names in its [scripts](Self::scripts).
    fn quote(&self) -> char {
        '`'
    }

    /// A column as text, in a statement without values.
    fn text(&self, column: &Name) -> String;

    /// An expression as text.
    fn as_text(&self, expression: &str) -> String {
        format!("CAST({expression} AS TEXT)")
    }

    /// Adds a row, unless there is one of its key. `row` is what stands behind `INSERT INTO`.
    fn insert_if_absent(&self, row: &str) -> String;

    /// Begins a transaction that reads one state of the database, whatever is written meanwhile.
    fn begin_read(&self) -> &'static str;

    /// Begins a transaction that writes.
    fn begin_write(&self) -> &'static str;

    /// Lets nobody else write a table until the transaction ends; none where those who only add a row to it need not wait for each
    /// other.
    fn hold(&self, table: &Name) -> Option<String>;

    /// What makes a connection refuse what it would cut to fit its column otherwise.
    fn strict(&self) -> Option<&'static str> {
        None
    }

    /// Asks whether a table has transactions: its answer is "NO" when it has none. None where all tables have them.
    fn transactions(&self, table: &Name) -> Option<String> {
        let _all_have_them = table;
        None
    }

    /// How many tables and views of a name there are.
    fn is_there(&self) -> &'static str;

    /// The scripts that create the tables, with Kamailio's names.
    fn scripts(&self) -> &'static [&'static str];

    /// Whether a script can be undone until its end.
    fn undoes_scripts(&self) -> bool;
}

/// What the crate itself asks of a dialect.
pub(crate) trait Driver: Dialect {
    /// Opens a connection, without a time limit.
    fn connect<'u>(&self, url: &'u DatabaseUrl) -> BoxFuture<'u, Result<Wire, Error>>;

    /// What to do about an error while connecting.
    fn mend_connecting(&self, error: &Error) -> &'static str;

    /// What an error of a statement means. `said` is the error in one line.
    fn meaning(&self, error: &Error, said: &str) -> Meaning;
}
