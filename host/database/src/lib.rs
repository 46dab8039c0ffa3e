//! The databases that Kamailio's tables and our own are in: MySQL, MariaDB, PostgreSQL and SQLite.
//!
//! - [`DatabaseUrl`] says where a database is, [`Schema`] what its tables and their columns are called;
//! - [`Connections`] opens connections and keeps a few, a [`Link`] is one of them, and runs statements whose answers have a time limit;
//! - a [`Dialect`] has what differs from one database to the other;
//! - [`Connections::migrate`] makes tables that are absent, [`TableWatch`] notices that one has changed;
//! - a [`Failure`] says what is wrong, where, and what to do.

#![forbid(unsafe_code)]

mod change;
mod connections;
mod dialect;
mod failure;
mod file_id;
mod link;
mod pool;
mod schema;
mod url;
mod wire;

pub use change::{ChangeSource, Look, TableWatch};
pub use connections::{Connections, MigrationAction, MigrationStep};
pub use dialect::Dialect;
pub use failure::Failure;
pub use link::{ADDRESS_VERSION, Column, Link, ReadError, Record, TRUSTED_VERSION, Value, Whole};
pub use schema::{AddressNames, Name, NameError, Schema, TrustedNames};
pub use url::{DatabaseUrl, ServerUrl, SslMode, UrlError};

/// Text from a database as it may appear in a log: quoted, escaped, and of bounded length.
pub fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
