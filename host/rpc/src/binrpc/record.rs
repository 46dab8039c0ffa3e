//! Reads records.

use thiserror::Error;

/// One record of a body. A structure or list is a record at its start and one at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Record<'a> {
    /// A whole number.
    Int(i32),
    /// A text without its NUL.
    Text(&'a [u8]),
    /// A number.
    Double(f64),
    /// The start of a structure.
    Struct,
    /// Its end.
    StructEnd,
    /// The start of a list.
    List,
    /// Its end.
    ListEnd,
    /// The name of a member, without its NUL; the value is the next record.
    Name(&'a [u8]),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// The records of a body. The iterator ends after the first malformed record.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

/// Why a record is malformed; the text begins with Kamailio's words (`binrpc_error`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadRecord {
    /// The body ends within the record.
    #[error("more data needed: a record is cut off")]
    CutOff,
    /// An unknown type.
    #[error("bad record: unknown type {0}")]
    Type(u8),
    /// A number with a length that it cannot have, in bytes.
    #[error("bad record: a number of {0} bytes")]
    Wide(usize),
    /// A text or name without its terminating NUL.
    #[error("bad record: a string without its end")]
    Unended,
    /// A start of a structure or list with a length.
    #[error("bad record: a structure with a length")]
    Length,
}

impl<'a> Records<'a> {
    /// The records of this body.
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    fn read(&mut self) -> Result<Record<'a>, BadRecord> {
        let lead = self.take(1)?.first().copied().unwrap_or_default();
        let (size, kind) = (usize::from(lead >> 4), lead & 0xf);
        // Unlike other records, a double has a size of four bits.
        if kind == DOUBLE && size == 8 {
            return Ok(Record::Double(double(self.take(size)?)));
        }
        let has_length = size & 8 != 0;
        let size = size & 7;
        if kind == STRUCT || kind == LIST {
            return match (kind, has_length, size) {
                (STRUCT, false, 0) => Ok(Record::Struct),
                (STRUCT, true, 0) => Ok(Record::StructEnd),
                (LIST, false, 0) => Ok(Record::List),
                (LIST, true, 0) => Ok(Record::ListEnd),
                _ => Err(BadRecord::Length),
            };
        }
        let length = match has_length {
            true => self.length(size)?,
            false => size,
        };
        match kind {
            INT if length > 4 => Err(BadRecord::Wide(length)),
            INT => Ok(Record::Int(integer(self.take(length)?))),
            TEXT => Ok(Record::Text(self.text(length)?)),
            DOUBLE if length > 8 => Err(BadRecord::Wide(length)),
            DOUBLE => Ok(Record::Double(double(self.take(length)?))),
            NAME => Ok(Record::Name(self.text(length)?)),
            BYTES => Ok(Record::Bytes(self.take(length)?)),
            other => Err(BadRecord::Type(other)),
        }
    }

    fn length(&mut self, width: usize) -> Result<usize, BadRecord> {
        let bytes = self.take(width)?;
        bytes
            .iter()
            .try_fold(0_usize, |length, &byte| {
                length.checked_mul(256)?.checked_add(byte.into())
            })
            .ok_or(BadRecord::CutOff)
    }

    fn text(&mut self, length: usize) -> Result<&'a [u8], BadRecord> {
        let text = self.take(length)?;
        text.strip_suffix(&[0]).ok_or(BadRecord::Unended)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], BadRecord> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(BadRecord::CutOff)?;
        self.rest = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BadRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}

/// At most four bytes, not sign-extended: negative numbers have all four.
fn integer(bytes: &[u8]) -> i32 {
    let bits = bytes
        .iter()
        .fold(0, |number, &byte| number << 8 | u32::from(byte));
    bits.cast_signed()
}

/// At most eight bytes, in thousandths.
fn double(bytes: &[u8]) -> f64 {
    let bits = bytes
        .iter()
        .fold(0, |number, &byte| number << 8 | u64::from(byte));
    bits.cast_signed() as f64 / 1000.0
}

pub(super) const INT: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const DOUBLE: u8 = 2;
pub(super) const STRUCT: u8 = 3;
pub(super) const LIST: u8 = 4;
pub(super) const NAME: u8 = 5;
pub(super) const BYTES: u8 = 6;

/// Set in the lead byte of an end, with a length of its own it says that the length follows.
pub(super) const END: u8 = 0x80;
