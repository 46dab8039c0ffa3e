//! One line of an address file.

use crate::database::StoredRow;
use crate::row::{Finding, Row, RowError, RowWarning};
use crate::turns::InTurns;

/// The fields of a line, in their order, by Kamailio's names of the columns.
const FIELDS: [&str; 5] = ["grp", "ip_addr", "mask", "port", "tag"];

/// The character that begins a comment.
const COMMENT: u8 = b'#';

/// A line that is not empty: `GROUP ADDRESS [MASK [PORT [TAG]]]`.
///
/// The format is Kamailio's (`permissions/address.c`, `reload_address_file_table`): blanks and tabs separate the fields; the defaults are
/// mask 0 (one host), port 0 (any) and no tag; a comment begins with `#`. Where Kamailio refuses a file because of one line, the line is
/// skipped here and reported. Lines may be longer than Kamailio's 1,023 bytes.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'t> {
    line: Line<'t>,
    /// The row as it is written, not yet validated.
    pub(crate) row: Result<Row<'t>, RowError>,
    /// A warning about the line, not about the row.
    pub(crate) warning: Option<RowWarning>,
}

/// A line, split into fields.
#[derive(Clone, Debug)]
struct Line<'t> {
    file: &'t str,
    /// Line number, from 1.
    number: i64,
    fields: Vec<Field<'t>>,
}

/// A field of a line.
#[derive(Clone, Copy, Debug)]
struct Field<'t> {
    text: &'t str,
    /// Column of its first character, from 1.
    column: usize,
}

/// Returns the entries of a file, without empty lines and comments. `file` is the name of the file in errors.
pub(crate) fn entries<'t>(
    bytes: &'t [u8],
    file: &'t str,
) -> impl Iterator<Item = Entry<'t>> + use<'t> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let lines = (1..).zip(bytes.split(|&byte| byte == b'\n'));
    let lines = lines.read_in_turns();
    lines.filter_map(move |(number, line)| Entry::read(file, number, line))
}

impl<'t> Entry<'t> {
    fn read(file: &'t str, number: i64, bytes: &'t [u8]) -> Option<Self> {
        let end = bytes.iter().position(|&byte| byte == COMMENT);
        let bytes = &bytes[..end.unwrap_or(bytes.len())];
        if bytes.trim_ascii().is_empty() {
            return None;
        }
        let text = std::str::from_utf8(bytes);
        let line = Line {
            file,
            number,
            fields: text.map(fields).unwrap_or_default(),
        };
        let row = match text {
            Ok(_) => line.row(),
            Err(_) => {
                let shown = String::from_utf8_lossy(bytes);
                Err(Finding::text("line", &shown, "is not text", "write it in UTF-8").error(number))
            }
        };
        Some(Self {
            row: row.map_err(|error| line.locate(error)),
            warning: line.warning(),
            line,
        })
    }

    /// Returns the position of a field, by Kamailio's name of its column: `FILE:LINE:COLUMN`.
    pub(crate) fn place(&self, column: &str) -> String {
        self.line.place(column)
    }

    /// Adds the position of the field to an error.
    pub(crate) fn locate(&self, error: RowError) -> RowError {
        self.line.locate(error)
    }

    /// Returns the fields as they are written, with defaults for missing ones.
    pub(crate) fn stored(&self) -> StoredRow {
        let field = |at: usize| self.line.fields.get(at).map(|field| field.text.to_owned());
        let zero = || Some("0".to_owned());
        StoredRow {
            id: Some(self.line.number.to_string()),
            group: field(0),
            ip_addr: field(1),
            mask: field(2).or_else(zero),
            port: field(3).or_else(zero),
            tag: field(4),
        }
    }
}

impl<'t> Line<'t> {
    fn row(&self) -> Result<Row<'t>, RowError> {
        let Some(ip_addr) = self.fields.get(1) else {
            let group = self.fields.first().map_or("", |field| field.text);
            let mend = "write GROUP ADDRESS, optionally followed by MASK, PORT and TAG";
            return Err(
                Finding::text("grp", group, "is not followed by an address", mend)
                    .error(self.number),
            );
        };
        Ok(Row {
            id: self.number,
            group: self.whole_number(0)?,
            ip_addr: ip_addr.text,
            mask: self.whole_number(2)?,
            port: self.whole_number(3)?,
            tag: self.fields.get(4).map(|field| field.text),
        })
    }

    /// Parses the number in a field; 0 if it is missing. Kamailio would take the digits, and the rest of the word for the next field.
    fn whole_number(&self, at: usize) -> Result<i64, RowError> {
        let Some(field) = self.fields.get(at) else {
            return Ok(0);
        };
        field.text.parse().map_err(|_| {
            let mend = "the fields are GROUP ADDRESS MASK PORT TAG: write a number here";
            Finding::text(FIELDS[at], field.text, "is not a whole number", mend).error(self.number)
        })
    }

    fn warning(&self) -> Option<RowWarning> {
        let sixth = self.fields.get(FIELDS.len())?;
        let mend = "it is ignored; a tag is one word, and a comment starts with #";
        let warning = Finding::text("tag", sixth.text, "follows the tag", mend);
        Some(warning.warning(self.number))
    }

    fn place(&self, column: &str) -> String {
        let at = FIELDS.iter().position(|field| *field == column);
        let field = at.and_then(|at| self.fields.get(at));
        let column = field.map_or(1, |field| field.column);
        format!("{}:{}:{column}", self.file, self.number)
    }

    fn locate(&self, error: RowError) -> RowError {
        let place = Some(self.place(error.column));
        RowError { place, ..error }
    }
}

fn fields(line: &str) -> Vec<Field<'_>> {
    let is_blank = |c: char| matches!(c, ' ' | '\t' | '\r');
    let mut fields = Vec::new();
    let mut begin = None;
    let end = (line.chars().count() + 1, (line.len(), ' '));
    for (column, (at, c)) in (1..).zip(line.char_indices()).chain([end]) {
        match begin {
            None if !is_blank(c) => begin = Some((at, column)),
            Some((first, column)) if is_blank(c) => {
                let text = &line[first..at];
                fields.push(Field { text, column });
                begin = None;
            }
            _ => {}
        }
    }
    fields
}
