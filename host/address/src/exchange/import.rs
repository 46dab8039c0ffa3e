//! What was read from a file, and what goes wrong with rows in files.

use std::io;
use std::net::IpAddr;

use thiserror::Error;

use crate::database::NewRow;
use crate::row::{RowError, RowWarning};

/// Warnings that an import keeps by name; the rest is only counted.
const MOST_NAMED: usize = 100;

/// Rows that were read from a file, and all that is wrong with it. Rows are only good if there are no errors at all.
#[derive(Debug, Default)]
pub struct Import {
    /// The rows that can be used, in their order.
    pub rows: Vec<NewRow>,
    /// Every row that can't.
    pub errors: Vec<RowError>,
    /// Rows that can be used, but probably mean something else than they should.
    pub warned: u64,
    /// The first hundred of these.
    pub warnings: Vec<RowWarning>,
}

/// Why a row was not written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The format can't express it. The others can be written all the same.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The file can't be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Import {
    /// Takes a row, or what is wrong with it. `place` tells where a column of it stands.
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
                let place = Some(place(error.column));
                self.errors.push(RowError { place, ..error });
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

/// The mask of a row that names none: one host, as for `portcullis address add`.
pub(super) fn host_mask(ip_addr: &str) -> i64 {
    let bare = ip_addr.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(IpAddr::V6(_)) => 128,
        _ => 32,
    }
}
