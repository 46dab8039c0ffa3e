//! What errors of databases mean.

/// What an error of a statement means, in the terms that all databases share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// There is no such table.
    NoTable(String),
    /// There is no such column.
    NoColumn,
    /// The user may not do this.
    Denied,
    /// Another transaction stood in the way.
    Conflict,
    /// Something else; what to do about it, if that is known.
    Other(&'static str),
}

/// The code of an error that the database itself reports: an SQLSTATE, or SQLite's number.
pub(crate) fn code(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}
