//! Processing of rows as they are read.

use std::hash::{DefaultHasher, Hash, Hasher};

use portcullis_database::{AddressNames, Column, TextRow};

use super::StoredRow;
use super::columns::{number, text};
use crate::row::{Row, RowError, RowWarning};
use crate::table::{Table, TableBuilder};

/// Most problems of each kind that a load reports; further ones are counted.
pub(super) const MOST_NAMED: usize = 100;

/// Result of a load.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The table of the valid rows.
    pub table: Table,
    /// Number of invalid rows, which were skipped.
    pub skipped: u64,
    /// The first of these, with reasons.
    pub errors: Vec<RowError>,
    /// Number of rows that are used with a warning.
    pub warned: u64,
    /// The first of these.
    pub warnings: Vec<RowWarning>,
    /// A hash of all rows as they were read; equal tables have equal hashes.
    pub(crate) digest: u64,
}

/// A load in progress.
#[derive(Default)]
pub(super) struct Loading {
    pub(super) builder: TableBuilder,
    loaded: Loaded,
    pub(super) hasher: DefaultHasher,
}

impl Loading {
    pub(super) fn take(&mut self, row: &TextRow<'_, 6>, names: &AddressNames) {
        row.columns.hash(&mut self.hasher);
        match read(row).and_then(|row| self.builder.push(row)) {
            Ok(None) => {}
            Ok(Some(warning)) => self.warn(RowWarning {
                place: names.place(warning.id, warning.column),
                ..warning
            }),
            Err(error) => self.skip(RowError {
                place: names.place(error.id, error.column),
                ..error
            }),
        }
    }

    /// Notes a row that is used with a warning.
    pub(super) fn warn(&mut self, warning: RowWarning) {
        self.loaded.warned += 1;
        if self.loaded.warnings.len() < MOST_NAMED {
            self.loaded.warnings.push(warning);
        }
    }

    /// Notes an invalid row, which is skipped.
    pub(super) fn skip(&mut self, error: RowError) {
        self.loaded.skipped += 1;
        if self.loaded.errors.len() < MOST_NAMED {
            self.loaded.errors.push(error);
        }
    }

    pub(super) fn finish(self) -> Loaded {
        Loaded {
            table: self.builder.build(),
            digest: self.hasher.finish(),
            ..self.loaded
        }
    }
}

impl From<[Option<String>; 6]> for StoredRow {
    fn from(columns: [Option<String>; 6]) -> Self {
        let [id, group, ip_addr, mask, port, tag] = columns;
        Self {
            id,
            group,
            ip_addr,
            mask,
            port,
            tag,
        }
    }
}

pub(super) fn read<'r>(row: &TextRow<'r, 6>) -> Result<Row<'r>, RowError> {
    let id = row.id();
    let [_, group, ip_addr, mask, port, tag] = row.columns;
    Ok(Row {
        id,
        group: number(group, id, "grp")?,
        ip_addr: text(ip_addr, id, "ip_addr")?,
        mask: number(mask, id, "mask")?,
        port: number(port, id, "port")?,
        tag: match tag {
            Column::Null => None,
            Column::Text(_) | Column::Bytes => Some(text(tag, id, "tag")?),
        },
    })
}
