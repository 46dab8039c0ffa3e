//! The differences between databases, one file each.
//!
//! Statements are written once, with MySQL's quotes around names and `?` for each value; [`Dialect::statement`] translates them for other
//! databases.

mod driver;
mod meaning;
mod mysql;
mod postgres;
mod sql;
mod sqlite;

use crate::DatabaseUrl;

pub(crate) use driver::Driver;
pub(crate) use meaning::Meaning;
pub(crate) use mysql::MySql;
pub(crate) use postgres::Postgres;
pub use sql::{Dialect, LastId, Turn};
pub(crate) use sqlite::{BUSY, Sqlite, make_private};

/// The driver of the database at this place.
pub(crate) fn driver_of(url: &DatabaseUrl) -> &'static dyn Driver {
    match url {
        DatabaseUrl::MySql(_) => &MySql,
        DatabaseUrl::Postgres(_) => &Postgres,
        DatabaseUrl::Sqlite(_) => &Sqlite,
    }
}
