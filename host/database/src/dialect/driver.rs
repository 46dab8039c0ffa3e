//! What the crate itself asks of a dialect.

use futures_util::future::BoxFuture;
use sqlx::Error;

use super::meaning::Meaning;
use super::sql::Dialect;
use crate::DatabaseUrl;
use crate::wire::Wire;

/// The functions of a dialect used within this crate.
pub(crate) trait Driver: Dialect {
    /// Opens a connection, without a time limit.
    fn connect<'u>(&self, url: &'u DatabaseUrl) -> BoxFuture<'u, Result<Wire, Error>>;

    /// What to do about an error while connecting.
    fn mend_connecting(&self, error: &Error) -> &'static str;

    /// The meaning of a statement's error. `said` is the error in one line.
    fn meaning(&self, error: &Error, said: &str) -> Meaning;
}
