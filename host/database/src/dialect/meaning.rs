//! What errors of databases mean.

/// The meaning of a statement's error, in the terms common to all databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// There is no such table.
    NoTable(String),
    /// There is no such column.
    NoColumn,
    /// The user lacks a privilege.
    Denied,
    /// A conflict with another transaction.
    Conflict,
    /// The connection ended.
    Lost,
    /// The server accepts no statements now.
    NotServing,
    /// The server accepts no writes; what to do about it.
    ReadOnly(&'static str),
    /// Another error; what to do about it, if that is known.
    Other(&'static str),
}

/// Whether the connection ended.
pub(crate) fn is_lost(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed)
}

/// The error code reported by the database: an SQLSTATE, or SQLite's number.
pub(crate) fn code(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}
