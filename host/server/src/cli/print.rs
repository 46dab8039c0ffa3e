//! Terminal output: tables, numbers with their nouns, escaped text.

use std::io::{self, IsTerminal, StdoutLock, Write};

use portcullis_text::{Clean, clean_json};
use serde::Serialize;

pub(super) use portcullis_text::clean;

/// The format of what a command shows.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct Format {
    /// One line of JSON instead of text
    #[arg(long)]
    pub(super) json: bool,
}

/// Writes a value as one line of JSON, escaped for a terminal.
pub(super) fn write_json(out: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    let json = serde_json::to_string(value)?;
    Ok(writeln!(out, "{}", clean_json(&json))?)
}

/// A table with a header; columns are as wide as their widest cell. Numbers are right-aligned, text is left-aligned.
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
        self.rows.push(row.map(|cell| clean(&cell).into_owned()));
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

/// `n` with its noun, in the plural where necessary.
pub(super) fn count(n: u64, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        n => format!("{n} {noun}s"),
    }
}

/// A text of the running host; Kamailio's words for a missing and an empty text are left out.
pub(super) fn shown(text: &str) -> String {
    match text {
        "NULL" => String::new(),
        text => clean(text).into_owned(),
    }
}

/// A text of the running host for programs: Kamailio's word for a missing text is `None`.
pub(super) fn present(text: &str) -> Option<&str> {
    (text != "NULL").then_some(text)
}

/// Standard output for people: text from files, rows and peers is escaped.
pub(super) fn stdout() -> Clean<StdoutLock<'static>> {
    Clean(io::stdout().lock())
}

/// Standard output for programs: bytes are unchanged, unless it is a terminal.
pub(super) fn data() -> Box<dyn Write> {
    match io::stdout().is_terminal() {
        true => Box::new(stdout()),
        false => Box::new(io::stdout().lock()),
    }
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
    fn cells_are_harmless_and_as_wide_as_they_are_shown() {
        let mut table = Table::new(["a", "b"]);
        table.push(["\u{1b}[2J".into(), "x".into()]);
        table.push(["plain".into(), "y\n3  z".into()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "a          b\n\\u{1b}[2J  x\nplain      y\\n3  z\n"
        );
        assert_eq!(shown("\u{202e}a"), "\\u{202e}a");
        assert_eq!(shown("NULL"), "");
    }
}
