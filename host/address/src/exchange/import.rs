//! Rows read from a file, with their errors.

use std::io;
use std::net::IpAddr;

use thiserror::Error;

use crate::database::NewRow;
use crate::row::{RowError, RowWarning};

/// Most warnings that an import reports; further ones are counted.
const MOST_NAMED: usize = 100;

/// Most errors that an import names; further ones are counted.
const MOST_ERRORS: usize = 10_000;

/// Rows that were read from a file, and their errors. The rows should be used only if there are no errors.
#[derive(Debug, Default)]
pub struct Import {
    /// The valid rows, in their order.
    pub rows: Vec<NewRow>,
    /// Number of rows with an error.
    pub refused: u64,
    /// The first ten thousand of these.
    pub errors: Vec<RowError>,
    /// Number of rows with a warning.
    pub warned: u64,
    /// The first hundred of these.
    pub warnings: Vec<RowWarning>,
}

/// Why a row was not written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The format cannot express the row. The other rows can be written nevertheless.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The file cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Import {
    /// Adds a row or its error. `place` returns the position of a column.
    pub(super) fn take(&mut self, row: Result<NewRow, RowError>, place: impl Fn(&str) -> String) {
        let checked = row.and_then(|row| row.check().map(|warning| (row, warning)));
        match checked {
            Ok((row, warning)) => {
                self.rows.push(row);
                if let Some(warning) = warning {
                    self.warn(warning, place);
                }
            }
            Err(error) => {
                self.refused += 1;
                if self.errors.len() < MOST_ERRORS {
                    let place = Some(place(error.column));
                    self.errors.push(RowError { place, ..error });
                }
            }
        }
    }

    pub(super) fn warn(&mut self, warning: RowWarning, place: impl Fn(&str) -> String) {
        self.warned += 1;
        if self.warnings.len() < MOST_NAMED {
            let place = Some(place(warning.column));
            self.warnings.push(RowWarning { place, ..warning });
        }
    }
}

/// Returns the default mask of a row: one host, as for `portcullis address add`.
pub(super) fn host_mask(ip_addr: &str) -> i64 {
    let bare = ip_addr.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(IpAddr::V6(_)) => 128,
        _ => 32,
    }
}
