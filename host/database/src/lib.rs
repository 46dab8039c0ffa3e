//! The databases of Kamailio's tables and our own: MySQL, MariaDB, PostgreSQL and SQLite.
//!
//! - [`DatabaseUrl`] says where a database is, [`Schema`] defines the names of its tables and columns;
//! - [`DatabaseUrls`] are the servers of a cluster; the connections use one that serves and has no older state than the one that was read;
//! - [`Connections`] opens connections and keeps a few; a [`Link`] is one of them, and runs statements with a time limit for each answer;
//! - a [`Dialect`] contains the differences between databases;
//! - [`Connections::migrate`] creates missing tables, [`TableWatch`] detects changes of a table, except those of [`Unseen`], and a [`Follower`]
//!   waits for the looks that all followers of a database share;
//! - a [`Failure`] says what is wrong, where, and what to do.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod change;
mod connections;
mod dialect;
mod failure;
mod health;
mod kind;
mod link;
mod observer;
mod pace;
mod pool;
mod row_statements;
mod schema;
mod servers;
mod text_row;
mod unchanged;
mod unseen;
mod url;
mod urls;
mod wire;

pub use change::{ChangeSource, Follower, Look, Looked, TableWatch};
pub use connections::{Connections, HasFailure, MigrationAction, MigrationStep, Try};
pub use dialect::{Dialect, LastId, Turn};
pub use failure::Failure;
pub use link::{
    ADDRESS_VERSION, Column, DISPATCHER_VERSION, Link, ReadError, Record, TRUSTED_VERSION, Value,
    Whole,
};
pub use pace::Pace;
pub use row_statements::{ROW_ID, RowStatements};
pub use schema::{AddressNames, DispatcherNames, Name, NameError, Schema, TrustedNames};
pub use servers::{Position, ServerStatus, ServersStatus};
pub use text_row::TextRow;
pub use unchanged::Unchanged;
pub use unseen::Unseen;
pub use url::{DatabaseUrl, ServerUrl, SslMode, UrlError};
pub use urls::{DatabaseUrls, UrlsError};

/// Text from a database for the log: quoted, escaped, and of limited length.
pub fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
