//! An address file that replaces the address table.

mod entry;

use std::fmt;
use std::hash::Hasher;
use std::io::Read;
use std::path::{Path, PathBuf};

pub(crate) use entry::entries;

use super::loading::{Loaded, Loading};
use super::{DatabaseError, NewRow, StoredRow};
use crate::regular;
use crate::row::{RowError, RowWarning};
use crate::turns::give_way;

/// Bytes of the file that are hashed in one turn.
const HASHED: usize = 64 << 10;

/// A file in the format of Kamailio's parameter `address_file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddressFile {
    path: PathBuf,
}

impl AddressFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file and builds a table of its lines.
    pub(super) fn load(&self) -> Result<Loaded, DatabaseError> {
        let bytes = self.read()?;
        let file = self.to_string();
        let mut loading = Loading::default();
        for piece in bytes.chunks(HASHED) {
            loading.hasher.write(piece);
            give_way();
        }
        let mut first = None;
        for entry in entries(&bytes, &file) {
            let pushed = entry.row.clone().and_then(|row| {
                let pushed = loading.builder.push(row);
                pushed.map_err(|error| entry.locate(error))
            });
            let warning = match pushed {
                Ok(warning) => warning.or_else(|| entry.warning.clone()),
                Err(error) => {
                    first.get_or_insert_with(|| error.clone());
                    loading.skip(error);
                    continue;
                }
            };
            if let Some(warning) = warning {
                let place = Some(entry.place(warning.column));
                loading.warn(RowWarning { place, ..warning });
            }
        }
        match first {
            Some(first) if loading.builder.is_empty() => Err(DatabaseError::NoUsableLine {
                file,
                first: Box::new(first),
            }),
            _ => Ok(loading.finish()),
        }
    }

    /// Passes all entries to `each`, with the number of the line as the id.
    pub(super) fn each_stored(&self, mut each: impl FnMut(StoredRow)) -> Result<(), DatabaseError> {
        let bytes = self.read()?;
        for entry in entries(&bytes, "") {
            each(entry.stored());
        }
        Ok(())
    }

    /// Passes all entries to `each`, and invalid ones as their errors.
    pub(super) fn each_new_row(
        &self,
        mut each: impl FnMut(Result<NewRow, RowError>),
    ) -> Result<(), DatabaseError> {
        let bytes = self.read()?;
        let file = self.to_string();
        for entry in entries(&bytes, &file) {
            each(entry.row.clone().and_then(|row| {
                let valid = row.validate();
                valid
                    .map(|_| row.into())
                    .map_err(|error| entry.locate(error))
            }));
        }
        Ok(())
    }

    fn read(&self) -> Result<Vec<u8>, DatabaseError> {
        let mut bytes = Vec::new();
        let read = regular::open(&self.path).and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_err(|error| DatabaseError::File {
            file: self.to_string(),
            cause: error.to_string(),
        })?;
        Ok(bytes)
    }
}

impl fmt::Display for AddressFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.path.display(), f)
    }
}

#[cfg(test)]
mod tests;
