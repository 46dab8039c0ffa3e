//! Rows as they are read.

use portcullis_address::{RowError, RowWarning};

use crate::member::Parts;
use crate::sets::Rows;

/// Most problems of each kind that a load reports; further ones are counted.
const MOST_NAMED: usize = 100;

/// Says where a row is, by the column in question.
type Place<'p> = &'p dyn Fn(&str) -> String;

/// A load in progress.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    pub(crate) rows: Rows,
}

impl Loading {
    /// Takes a row, or the reason why it is skipped.
    pub(crate) fn take(
        &mut self,
        row: Result<(Parts, Option<RowWarning>), RowError>,
        place: Option<Place<'_>>,
    ) {
        let rows = &mut self.rows;
        match row {
            Ok((parts, warning)) => {
                rows.rows.push(parts);
                let Some(warning) = warning else {
                    return;
                };
                rows.warned += 1;
                if rows.warnings.len() < MOST_NAMED {
                    rows.warnings.push(RowWarning {
                        place: place.map(|place| place(warning.column)),
                        ..warning
                    });
                }
            }
            Err(error) => {
                rows.skipped += 1;
                if rows.errors.len() < MOST_NAMED {
                    rows.errors.push(RowError {
                        place: place.map(|place| place(error.column)),
                        ..error
                    });
                }
            }
        }
    }
}
