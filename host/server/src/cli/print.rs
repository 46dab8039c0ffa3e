//! What goes to the terminal: tables, numbers with their nouns, text from the wire without its control characters.

use std::borrow::Cow;
use std::io::{self, Write};

use serde_json::Value;

/// A table with a head; columns are as wide as their widest cell. Numbers stand right, texts left.
pub(super) struct Table<const N: usize> {
    head: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [&'static str; N]) -> Self {
        Self {
            head,
            rows: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |at: usize| {
            let cells = self.rows.iter().map(|row| row[at].chars().count());
            cells.chain([self.head[at].len()]).max().unwrap_or_default()
        };
        let widths: [usize; N] = std::array::from_fn(width);
        let numeric: [bool; N] = std::array::from_fn(|at| {
            let digits = |cell: &String| cell.bytes().all(|byte| byte.is_ascii_digit());
            self.rows.iter().all(|row| digits(&row[at]))
        });
        let head = self.head.map(str::to_owned);
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let width = widths[at];
                let cell = clean(cell);
                line += &if numeric[at] {
                    format!("{cell:>width$}  ")
                } else {
                    format!("{cell:<width$}  ")
                };
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `n` with its noun, in the plural where it needs one.
pub(super) fn count(n: u64, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        n => format!("{n} {noun}s"),
    }
}

/// The items of a list that the running host answered.
pub(super) fn rows(answer: &Value) -> &[Value] {
    answer.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// One of its values.
pub(super) fn cell(value: &Value) -> String {
    match value {
        // Kamailio's word for no tag and for an empty one.
        Value::String(text) if text == "NULL" => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Text that came from elsewhere: control characters are shown, not obeyed.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return text.into();
    }
    let show = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.into()
        }
    };
    text.chars().map(show).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let mut table = Table::new(["id", "address", "tag"]);
        table.push(["1".into(), "10.8.203.139".into(), "Test".into()]);
        table.push(["12".into(), "::1".into(), String::new()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "id  address       tag\n 1  10.8.203.139  Test\n12  ::1\n"
        );
    }

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(clean("a\u{1b}[31mb"), "a\\u{1b}[31mb");
        assert_eq!(clean("übung"), "übung");
    }
}
