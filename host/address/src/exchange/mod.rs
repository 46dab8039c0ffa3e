//! Rows in files: CSV, JSON lines, and the format of Kamailio's `address_file`.

mod address_file;
mod csv;
mod json_lines;

use std::io::{self, Write};
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

use crate::database::NewRow;
use crate::row::{RowError, RowWarning};

/// Warnings that an import keeps by name; the rest is only counted.
const MOST_NAMED: usize = 100;

/// How rows are written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Values with commas between (RFC 4180), under a line of names: `grp,ip_addr,mask,port,tag`, of which the last three may be
    /// left out, in any order; `id` is ignored. A tag `\N` is NULL, as in MySQL's own files; to say a tag of backslashes and an N, write
    /// one backslash more.
    Csv,
    /// A JSON object a line, with the same names: `{"grp":200,"ip_addr":"192.0.2.1","mask":32,"port":0,"tag":null}`.
    JsonLines,
    /// Kamailio's `address_file`: `GROUP ADDRESS [MASK [PORT [TAG]]]`. It knows no empty tag, and no tag with blanks in it.
    AddressFile,
}

/// The name of no format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no format \"{0}\"; the formats are csv, jsonl and address-file")]
pub struct FormatError(String);

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

/// Writes rows to a file.
pub struct RowWriter<W: Write> {
    sheet: Sheet<W>,
    untold: u64,
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

enum Sheet<W: Write> {
    Csv(Box<::csv::Writer<W>>),
    Text(Format, W),
}

impl Format {
    /// The format that goes with the ending of a file's name.
    pub fn of_file(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(name: &str) -> Result<Self, FormatError> {
        match name {
            "csv" => Ok(Self::Csv),
            "jsonl" => Ok(Self::JsonLines),
            "address-file" => Ok(Self::AddressFile),
            other => Err(FormatError(other.to_owned())),
        }
    }
}

impl Import {
    /// Reads a file to its end, however many rows are bad. `file` names it in errors.
    pub fn read(format: Format, bytes: &[u8], file: &str) -> Self {
        let mut import = Self::default();
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        match format {
            Format::Csv => csv::read(bytes, file, &mut import),
            Format::JsonLines => json_lines::read(bytes, file, &mut import),
            Format::AddressFile => address_file::read(bytes, file, &mut import),
        }
        import
    }

    /// Takes a row, or what is wrong with it. `place` tells where a column of it stands.
    fn take(&mut self, row: Result<NewRow, RowError>, place: impl Fn(&str) -> String) {
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

    fn warn(&mut self, warning: RowWarning, place: impl Fn(&str) -> String) {
        self.warned += 1;
        if self.warnings.len() < MOST_NAMED {
            let place = Some(place(warning.column));
            self.warnings.push(RowWarning { place, ..warning });
        }
    }
}

impl<W: Write> RowWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn new(format: Format, out: W) -> io::Result<Self> {
        let sheet = match format {
            Format::Csv => Sheet::Csv(Box::new(csv::begin(out)?)),
            other => Sheet::Text(other, out),
        };
        Ok(Self { sheet, untold: 0 })
    }

    /// Writes a row.
    ///
    /// # Errors
    /// When the format can't express it, or the file can't be written.
    pub fn write(&mut self, row: &NewRow) -> Result<(), WriteError> {
        match &mut self.sheet {
            Sheet::Csv(out) => Ok(csv::write(out, row)?),
            Sheet::Text(Format::AddressFile, out) => {
                self.untold += u64::from(row.tag.as_deref() == Some(""));
                address_file::write(out, row)
            }
            Sheet::Text(_, out) => Ok(json_lines::write(out, row)?),
        }
    }

    /// Ends the file. Tells how many rows have an empty tag and were written as if they had none, because the format knows none.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn finish(self) -> io::Result<u64> {
        match self.sheet {
            Sheet::Csv(mut out) => out.flush()?,
            Sheet::Text(_, mut out) => out.flush()?,
        }
        Ok(self.untold)
    }
}

/// The mask of a row that names none: one host, as for `portcullis address add`.
fn host_mask(ip_addr: &str) -> i64 {
    let bare = ip_addr.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(IpAddr::V6(_)) => 128,
        _ => 32,
    }
}

#[cfg(test)]
mod tests;
