//! Rows in files: CSV, JSON lines, and the format of Kamailio's `address_file`.

mod address_file;
mod csv;
mod import;
mod json_lines;

use std::io::{self, Write};
use std::str::FromStr;

use thiserror::Error;

pub use import::{Import, WriteError};

use crate::database::NewRow;

/// A file format for rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values (RFC 4180) with a header: `grp,ip_addr,mask,port,tag` in any order, of which the last three may be omitted;
    /// `id` is ignored. A tag `\N` is NULL, as in MySQL's files; to write a tag of backslashes and an N, add one backslash.
    Csv,
    /// One JSON object per line, with the same names: `{"grp":200,"ip_addr":"192.0.2.1","mask":32,"port":0,"tag":null}`.
    JsonLines,
    /// Kamailio's `address_file`: `GROUP ADDRESS [MASK [PORT [TAG]]]`. It has no empty tags, and no tags with blanks.
    AddressFile,
}

/// An unknown name of a format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown format \"{0}\"; the formats are csv, jsonl and address-file")]
pub struct FormatError(String);

/// Writes rows to a file.
pub struct RowWriter<W: Write> {
    sheet: Sheet<W>,
    untold: u64,
}

enum Sheet<W: Write> {
    Csv(Box<::csv::Writer<W>>),
    Text(Format, W),
}

impl Format {
    /// Returns the format for the extension of a file name.
    pub fn of_file(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            _ => None,
        }
    }

    /// Reads a whole file, however many rows are invalid. `file` is the name of the file in errors.
    pub fn read(self, bytes: &[u8], file: &str) -> Import {
        let mut import = Import::default();
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        match self {
            Self::Csv => csv::read(bytes, file, &mut import),
            Self::JsonLines => json_lines::read(bytes, file, &mut import),
            Self::AddressFile => address_file::read(bytes, file, &mut import),
        }
        import
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

impl<W: Write> RowWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(format: Format, out: W) -> io::Result<Self> {
        let sheet = match format {
            Format::Csv => Sheet::Csv(Box::new(csv::begin(out)?)),
            Format::JsonLines | Format::AddressFile => Sheet::Text(format, out),
        };
        Ok(Self { sheet, untold: 0 })
    }

    /// Writes a row.
    ///
    /// # Errors
    /// If the format cannot express it, or the file cannot be written.
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

    /// Ends the file. Returns the number of rows with an empty tag that were written without a tag, because the format has no empty tags.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(self) -> io::Result<u64> {
        match self.sheet {
            Sheet::Csv(mut out) => out.flush()?,
            Sheet::Text(_, mut out) => out.flush()?,
        }
        Ok(self.untold)
    }
}

#[cfg(test)]
mod tests;
