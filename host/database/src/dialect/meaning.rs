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
    /// Another error; what to do about it, if that is known.
    Other(&'static str),
}

/// The error code reported by the database: an SQLSTATE, or SQLite's number.
pub(crate) fn code(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}
