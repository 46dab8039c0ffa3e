//! Errors and warnings about a row.

use std::fmt;

use portcullis_database::shown;

/// A row that is invalid, and is skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// Column `id` of the row; the position of the row in the load if the table has no such column; 0 for a row that is not stored yet; the
    /// line number in a file.
    pub id: i64,
    /// Position of the row, if the number alone does not identify it: file and line, or the configured name of the column.
    pub place: Option<String>,
    /// The invalid column.
    pub column: &'static str,
    /// The value of the column, as printable text of bounded length.
    pub value: String,
    /// What is wrong.
    pub fault: String,
    /// How to correct it.
    pub mend: String,
}

/// A row that is used, but may not mean what was intended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowWarning {
    /// Column `id` of the row, as in [`RowError::id`].
    pub id: i64,
    /// Position of the row, as in [`RowError::place`].
    pub place: Option<String>,
    /// The column in question.
    pub column: &'static str,
    /// The value of the column, as printable text of bounded length.
    pub value: String,
    /// What is unusual.
    pub fault: String,
    /// How the row is used, and what to write instead.
    pub mend: String,
}

/// An error or a warning without its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    column: &'static str,
    value: String,
    fault: String,
    mend: String,
}

impl Finding {
    pub(crate) fn text(column: &'static str, value: &str, fault: &str, mend: &str) -> Self {
        Self {
            column,
            value: shown(value),
            fault: fault.to_owned(),
            mend: mend.to_owned(),
        }
    }

    pub(crate) fn number(column: &'static str, value: i64, fault: &str, mend: &str) -> Self {
        Self {
            column,
            value: value.to_string(),
            fault: fault.to_owned(),
            mend: mend.to_owned(),
        }
    }

    pub(crate) fn error(self, id: i64) -> RowError {
        RowError {
            id,
            place: None,
            column: self.column,
            value: self.value,
            fault: self.fault,
            mend: self.mend,
        }
    }

    pub(crate) fn warning(self, id: i64) -> RowWarning {
        RowWarning {
            id,
            place: None,
            column: self.column,
            value: self.value,
            fault: self.fault,
            mend: self.mend,
        }
    }
}

/// `row 17: ip_addr "10.0.0.0/24" is a network …; write …`, without the number if the row is not stored yet, and with the position instead
/// of the number if there is one.
impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(
            f,
            self.id,
            self.place.as_deref(),
            [self.column, &self.value, &self.fault, &self.mend],
        )
    }
}

impl std::error::Error for RowError {}

impl fmt::Display for RowWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(
            f,
            self.id,
            self.place.as_deref(),
            [self.column, &self.value, &self.fault, &self.mend],
        )
    }
}

fn line(
    f: &mut fmt::Formatter<'_>,
    id: i64,
    place: Option<&str>,
    [column, value, fault, mend]: [&str; 4],
) -> fmt::Result {
    match place {
        Some(place) => write!(f, "{place}: ")?,
        None if id != 0 => write!(f, "row {id}: ")?,
        None => {}
    }
    write!(f, "{column} {value} {fault}; {mend}")
}
