//! Columns of rows as they are read, and as they are written: shared by the tables.

use portcullis_database::Column;

use crate::row::{Finding, RowError, shown};

/// Reads a column that must be a whole number.
///
/// # Errors
/// If it is none.
pub fn number(value: Column<'_>, id: i64, column: &'static str) -> Result<i64, RowError> {
    let text = text(value, id, column)?;
    text.parse().map_err(|_| RowError {
        id,
        place: None,
        column,
        value: shown(text),
        fault: "is not a whole number".to_owned(),
        mend: "write a number, and use an integer type for the column".to_owned(),
    })
}

/// Reads a column that must be text.
///
/// # Errors
/// If it is NULL, or bytes that are no text.
pub fn text<'r>(value: Column<'r>, id: i64, column: &'static str) -> Result<&'r str, RowError> {
    let (value, fault, mend) = match value {
        Column::Text(text) => return Ok(text),
        Column::Null => (
            "NULL",
            "is no value",
            "write one, and declare the column NOT NULL",
        ),
        Column::Bytes => ("(bytes)", "is not text", "write it as text in UTF-8"),
    };
    Err(RowError {
        id,
        place: None,
        column,
        value: value.to_owned(),
        fault: fault.to_owned(),
        mend: mend.to_owned(),
    })
}

/// Checks that a column of this width in characters can store the text.
///
/// # Errors
/// If it cannot.
pub fn fits(column: &'static str, text: &str, most: usize) -> Result<(), RowError> {
    let length = text.chars().count();
    if length > most {
        let fault = format!("has {length} characters");
        let mend = format!("use at most {most}: the column is no wider");
        return Err(Finding::text(column, text, &fault, &mend).error(0));
    }
    Ok(())
}
