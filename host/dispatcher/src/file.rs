//! The file form of the table: `SETID URI [FLAGS [PRIORITY [ATTRS [DESCRIPTION]]]]`, with `#` before a comment (Kamailio: `list_file`).

use std::path::Path;

use portcullis_address::RowError;
use portcullis_database::shown;

use crate::error::DispatcherError;
use crate::loading::Loading;
use crate::row::DispatcherRow;
use crate::sets::Rows;

/// The largest file, in bytes.
const LARGEST: u64 = 64 << 20;

/// Reads all lines. An invalid one is skipped and reported.
pub(crate) fn load(path: &Path) -> Result<Rows, DispatcherError> {
    let failed = |cause: String| DispatcherError::File {
        file: path.display().to_string(),
        cause,
    };
    let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if length.len() > LARGEST {
        return Err(failed(format!("it has more than {LARGEST} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let rows = read(&text, path);
    match rows.errors.first() {
        Some(first) if rows.rows.is_empty() => Err(DispatcherError::NoUsableLine {
            file: path.display().to_string(),
            first: Box::new(first.clone()),
        }),
        Some(_) | None => Ok(rows),
    }
}

/// The rows of a text.
pub(crate) fn read(text: &str, path: &Path) -> Rows {
    let mut loading = Loading::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let parts = row_of(number, line).and_then(|row| row.parts());
        loading.take(parts, Some(&|_| format!("{}:{number}", path.display())));
    }
    loading.rows
}

fn row_of(number: i64, line: &str) -> Result<DispatcherRow<'_>, RowError> {
    let mut fields = Fields(line);
    let setid = fields.next().unwrap_or_default();
    let destination = fields.next().unwrap_or_default();
    let flags = fields.next().unwrap_or("0");
    let priority = fields.next().unwrap_or("0");
    Ok(DispatcherRow {
        id: number,
        setid: whole(number, "setid", setid)?,
        destination,
        flags: whole(number, "flags", flags)?,
        priority: whole(number, "priority", priority)?,
        attrs: fields.next().unwrap_or_default(),
        description: fields.0.trim(),
    })
}

/// Reads a decimal number, or a hexadecimal one after `0x`.
fn whole(id: i64, column: &'static str, text: &str) -> Result<i64, RowError> {
    let read = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    read.map_err(|_| RowError {
        id,
        place: None,
        column,
        value: shown(text),
        fault: "is not a whole number".to_owned(),
        mend: "write SETID URI [FLAGS [PRIORITY [ATTRS]]]".to_owned(),
    })
}

/// Words between blanks. A word that begins with a double quote ends with the next one.
struct Fields<'l>(&'l str);

impl<'l> Iterator for Fields<'l> {
    type Item = &'l str;

    fn next(&mut self) -> Option<&'l str> {
        let rest = self.0.trim_start();
        if rest.is_empty() {
            self.0 = rest;
            return None;
        }
        let (word, rest) = match rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
            Some(quoted) => quoted,
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        self.0 = rest;
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_rows() {
        let text = "# gateways\n\n1 sip:192.0.2.1\n1 sip:192.0.2.2:5070;transport=tcp 0x8 -5 \"weight=5;duid=a\" the second one # spare\n\
                    2\tsip:gw.example.com\t2\t10\tsite=north\n";
        let rows = read(text, Path::new("list")).rows;
        let shown = rows.iter().map(|row| {
            let (attrs, text) = (&row.attrs.body, &row.description);
            format!(
                "{} {} {} {} {attrs} {text}",
                row.set, row.uri, row.flags, row.priority
            )
        });
        let shown: Vec<_> = shown.collect();
        assert_eq!(
            shown,
            [
                "1 sip:192.0.2.1 0 0  ",
                "1 sip:192.0.2.2:5070;transport=tcp 8 -5 weight=5;duid=a the second one",
                "2 sip:gw.example.com 2 10 site=north ",
            ]
        );
    }

    #[test]
    fn invalid_lines_are_named_by_file_and_line() {
        let rows = read(
            "1 sip:192.0.2.1\none sip:192.0.2.2\n1\n1 sip:192.0.2.3 x\n",
            Path::new("list"),
        );
        let said: Vec<_> = rows.errors.iter().map(ToString::to_string).collect();
        assert_eq!((rows.rows.len(), rows.skipped), (1, 3));
        assert!(
            said[0].starts_with("list:2: setid \"one\" is not a whole number"),
            "{said:?}"
        );
        assert!(
            said[1].starts_with("list:3: destination \"\" has no scheme"),
            "{said:?}"
        );
        assert!(said[2].starts_with("list:4: flags \"x\""), "{said:?}");
    }

    #[test]
    fn a_file_without_a_valid_line_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        assert!(matches!(load(&path), Err(DispatcherError::File { .. })));
        std::fs::write(&path, "x\n").unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("has no valid line"), "{error}");
        std::fs::write(&path, "# nothing yet\n").unwrap();
        assert!(load(&path).unwrap().rows.is_empty());
    }
}
