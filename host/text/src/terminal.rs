//! Untrusted text for terminals and logs: files, rows, peers and policies must not be able to write escape sequences, change the direction
//! of text, or begin a new line.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Whether a character affects a terminal or the surrounding text: C0, DEL and C1 controls, line and paragraph separators, and
/// bidirectional formatting characters (Unicode TR 36, "bidirectional text spoofing").
pub const fn is_active(c: char) -> bool {
    matches!(
        c,
        '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

/// `text` on one line, with every active character as its escape: `\u{1b}`. Allocates only if there is one.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_active) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_active(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// The same for text of several lines: line ends and tabs are kept.
pub fn clean_lines(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_active_in_lines) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_active_in_lines(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

const fn is_active_in_lines(c: char) -> bool {
    is_active(c) && !matches!(c, '\n' | '\t')
}

/// A line of JSON in which characters that JSON permits but a terminal interprets are JSON escapes: it parses to the same value.
pub fn clean_json(line: &str) -> Cow<'_, str> {
    if !line.chars().any(is_active_in_lines) {
        return Cow::Borrowed(line);
    }
    let mut shown = String::with_capacity(line.len() + 16);
    for c in line.chars() {
        match is_active_in_lines(c) {
            true => {
                let _infallible = write!(shown, "\\u{:04x}", u32::from(c));
            }
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Writes text to a terminal, with active characters other than line ends and tabs escaped. Everything a command prints passes through it.
/// It cannot distinguish line ends of ours from those in untrusted text, which must pass through [`clean`] first.
#[derive(Debug)]
pub struct Clean<W>(pub W);

impl<W: Write> Write for Clean<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for chunk in bytes.utf8_chunks() {
            self.0.write_all(clean_lines(chunk.valid()).as_bytes())?;
            for byte in chunk.invalid() {
                write!(self.0, "\\x{byte:02x}")?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str =
        "a\u{1b}[31m\u{7}\r\n\u{7f}\u{9b}2J\u{202e}\u{2066}\u{2028}\u{200f}ü\t\u{85}";

    #[test]
    fn plain_text_is_borrowed() {
        assert!(matches!(clean("Ünïcode, 日本 \u{301}"), Cow::Borrowed(_)));
        assert!(matches!(clean_lines("a\n\tb"), Cow::Borrowed(_)));
        assert!(matches!(clean_json("{\"a\":1}\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn no_active_character_is_left() {
        let shown = clean(HOSTILE);
        assert!(!shown.chars().any(is_active), "{shown}");
        assert!(shown.starts_with("a\\u{1b}[31m\\u{7}\\r\\n\\u{7f}\\u{9b}2J\\u{202e}"));
        let lines = clean_lines(HOSTILE);
        assert!(lines.contains("\\r\n") && !lines.contains('\u{1b}'));
    }

    #[test]
    fn json_stays_the_same_value() {
        let line = serde_json::to_string(HOSTILE).unwrap();
        let shown = clean_json(&line);
        assert!(!shown.chars().any(is_active), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), HOSTILE);
    }

    #[test]
    fn a_writer_escapes_invalid_utf_8() {
        let mut out = Vec::new();
        let mut clean = Clean(&mut out);
        clean.write_all(b"a\xff\x1b]0;x\x07\n").unwrap();
        assert_eq!(out, b"a\\xff\\u{1b}]0;x\\u{7}\n");
    }
}
