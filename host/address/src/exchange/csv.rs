//! Comma-separated values.

use std::io::{self, Write};

use csv::{ByteRecord, ReaderBuilder, Writer};

use super::import::{Import, host_mask};
use crate::database::NewRow;
use crate::row::{Finding, RowError};

/// The header line.
const HEAD: [&str; 5] = ["grp", "ip_addr", "mask", "port", "tag"];

/// A tag that is NULL.
const NULL: &str = "\\N";

/// Which field of a line is which column.
struct Columns {
    group: usize,
    ip_addr: usize,
    mask: Option<usize>,
    port: Option<usize>,
    tag: Option<usize>,
    /// Number of columns.
    count: usize,
}

/// Counts lines. The CSV reader does not count empty lines and lines that end with CR LF correctly.
struct Lines<'t> {
    bytes: &'t [u8],
    /// Lines counted so far.
    at: usize,
    line: usize,
}

pub(super) fn read(bytes: &[u8], file: &str, import: &mut Import) {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(bytes);
    let mut record = ByteRecord::new();
    let mut lines = Lines::new(bytes);
    let mut columns = None;
    loop {
        let begin = reader.position().byte();
        let read = reader.read_byte_record(&mut record);
        let line = lines.at(begin);
        let place = |_: &str| format!("{file}:{line}");
        match read {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return import.take(Err(fault("line", "", &error.to_string())), place),
        }
        match &columns {
            None => match Columns::read(&record) {
                Ok(read) => columns = Some(read),
                Err(error) => return import.take(Err(error), place),
            },
            Some(columns) => import.take(columns.row(&record), place),
        }
    }
    if columns.is_none() {
        import.take(Err(no_head("")), |_| format!("{file}:1"));
    }
}

/// Begins a file with the header line.
pub(super) fn begin<W: Write>(out: W) -> io::Result<Writer<W>> {
    let mut out = Writer::from_writer(out);
    out.write_record(HEAD)?;
    Ok(out)
}

pub(super) fn write<W: Write>(out: &mut Writer<W>, row: &NewRow) -> io::Result<()> {
    let tag = match row.tag.as_deref() {
        None => NULL.to_owned(),
        Some(tag) if looks_null(tag) => format!("\\{tag}"),
        Some(tag) => tag.to_owned(),
    };
    out.write_record([
        &row.group.to_string(),
        &row.ip_addr,
        &row.mask.to_string(),
        &row.port.to_string(),
        &tag,
    ])?;
    Ok(())
}

impl Columns {
    fn read(head: &ByteRecord) -> Result<Self, RowError> {
        let text = String::from_utf8_lossy(head.as_slice());
        let names: Vec<_> = head.iter().map(|name| name.trim_ascii()).collect();
        let known = |name: &&&[u8]| {
            let name = std::str::from_utf8(name).unwrap_or_default();
            name == "id" || HEAD.contains(&name)
        };
        if let Some(unknown) = names.iter().find(|name| !known(name)) {
            let unknown = String::from_utf8_lossy(unknown);
            return Err(no_head(&unknown));
        }
        let find = |name: &str| {
            let mut found = (0..).zip(&names).filter(|(_, n)| **n == name.as_bytes());
            let first = found.next().map(|(at, _)| at);
            match found.next() {
                Some(_) => Err(fault("line", name, "occurs twice; name each column once")),
                None => Ok(first),
            }
        };
        let must = |at: Option<usize>| at.ok_or_else(|| no_head(&text));
        Ok(Self {
            group: must(find("grp")?)?,
            ip_addr: must(find("ip_addr")?)?,
            mask: find("mask")?,
            port: find("port")?,
            tag: find("tag")?,
            count: names.len(),
        })
    }

    fn row(&self, record: &ByteRecord) -> Result<NewRow, RowError> {
        if record.len() != self.count {
            let (found, count) = (record.len(), self.count);
            let what = format!(
                "has {found} values for {count} columns; write as many values, and quotes around \
                 those with a comma in them"
            );
            let first = String::from_utf8_lossy(record.get(0).unwrap_or_default());
            return Err(fault("line", &first, &what));
        }
        let text = |at: usize, column| {
            let bytes = record.get(at).unwrap_or_default();
            std::str::from_utf8(bytes).map_err(|_| {
                let shown = String::from_utf8_lossy(bytes);
                fault(column, &shown, "is not text; write the file in UTF-8")
            })
        };
        let number = |at: Option<usize>, column, default| {
            let text = match at {
                Some(at) => text(at, column)?.trim(),
                None => "",
            };
            match text {
                "" => Ok(default),
                text => text
                    .parse::<i64>()
                    .map_err(|_| fault(column, text, "is not a whole number; write one")),
            }
        };
        let ip_addr = text(self.ip_addr, "ip_addr")?;
        let tag = self.tag.map(|at| text(at, "tag")).transpose()?;
        Ok(NewRow {
            group: number(Some(self.group), "grp", 0)?,
            mask: number(self.mask, "mask", host_mask(ip_addr))?,
            port: number(self.port, "port", 0)?,
            ip_addr: ip_addr.to_owned(),
            tag: match tag {
                None | Some(NULL) => None,
                Some(tag) if looks_null(tag) => Some(tag[1..].to_owned()),
                Some(tag) => Some(tag.to_owned()),
            },
        })
    }
}

impl<'t> Lines<'t> {
    fn new(bytes: &'t [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            line: 1,
        }
    }

    /// Returns the line of the first value at or after a position, which must not decrease.
    fn at(&mut self, begin: u64) -> usize {
        let begin = usize::try_from(begin).unwrap_or(usize::MAX);
        while let Some(&byte) = self.bytes.get(self.at) {
            if self.at >= begin && !matches!(byte, b'\r' | b'\n') {
                break;
            }
            self.line += usize::from(byte == b'\n');
            self.at += 1;
        }
        self.line
    }
}

/// Whether the tag is backslashes and an N: NULL, or a text that would be NULL with one backslash less.
fn looks_null(tag: &str) -> bool {
    tag.strip_suffix('N')
        .is_some_and(|slashes| !slashes.is_empty() && slashes.bytes().all(|byte| byte == b'\\'))
}

fn no_head(found: &str) -> RowError {
    fault(
        "line",
        found,
        "is not a header; begin the file with grp,ip_addr,mask,port,tag",
    )
}

/// Creates an error without a position; `what` is the fault and how to correct it.
fn fault(column: &'static str, value: &str, what: &str) -> RowError {
    let (fault, mend) = what.split_once("; ").unwrap_or((what, "correct it"));
    Finding::text(column, value, fault, mend).error(0)
}
