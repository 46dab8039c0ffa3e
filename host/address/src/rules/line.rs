//! One line of an allow or deny file: `left [EXCEPT left] : right [EXCEPT right]`, each a list of patterns with commas between.
//!
//! Read as Kamailio reads it (`permissions/parse_config.c`), with its odd corners: the last colon outside of quotes divides the
//! sides; ` EXCEPT ` counts within quotes too; a word without quotes is a pattern. Only the length of a line has no limit: Kamailio
//! takes what is behind 499 bytes for another line, and to leave a long line out of a deny file would allow what it denies.

use super::blocks::{Rule, Side};
use crate::pattern::{Draft, Syntax};

/// The longest pattern, in bytes.
const LONGEST_PATTERN: usize = 255;

const EXCEPT: &str = " EXCEPT ";

/// What is wrong with a line.
#[derive(Debug)]
pub(super) struct Fault {
    /// The part at fault.
    pub(super) value: String,
    pub(super) fault: String,
    pub(super) mend: String,
}

impl Rule {
    /// Reads a line; none for one that says nothing.
    pub(super) fn parse(line: &[u8]) -> Result<Option<Self>, Fault> {
        let Some((end, colon)) = extent(line) else {
            return Ok(None);
        };
        // What a comment is written in is nobody's business.
        let Ok(line) = std::str::from_utf8(&line[..end]) else {
            let line = String::from_utf8_lossy(line);
            return Err(fault(&line, "is no text", "write it in UTF-8"));
        };
        let mend = "write LEFT : RIGHT, each a list of patterns in quotes, or ALL";
        let Some(colon) = colon else {
            return Err(fault(line, "has no colon outside of quotes", mend));
        };
        let (left, right) = (&line[..colon], &line[colon + 1..]);
        if left.trim().is_empty() || right.trim().is_empty() {
            return Err(fault(line, "has nothing on one side of the colon", mend));
        }
        Ok(Some(Self {
            left: Side::parse(left)?,
            right: Side::parse(right)?,
        }))
    }
}

impl Side {
    fn parse(text: &str) -> Result<Self, Fault> {
        let (patterns, except) = match text.split_once(EXCEPT) {
            Some((patterns, except)) => (patterns, list(except)?),
            None => (text, Vec::new()),
        };
        let patterns = match patterns.trim_ascii() {
            "ALL" => Vec::new(),
            patterns => list(patterns)?,
        };
        Self::new(patterns, except)
            .map_err(|error| fault(text.trim_ascii(), &error.fault, error.mend))
    }
}

/// Where a line ends, be it with a comment, and the last colon outside of quotes; none if there is nothing but blanks.
fn extent(line: &[u8]) -> Option<(usize, Option<usize>)> {
    let (mut is_quoted, mut says_something, mut colon) = (false, false, None);
    let mut end = line.len();
    for (at, byte) in line.iter().copied().enumerate() {
        match byte {
            b'#' if !is_quoted => {
                end = at;
                break;
            }
            b' ' | b'\t' => continue,
            b'"' => is_quoted = !is_quoted,
            b':' if !is_quoted => colon = Some(at),
            _ => {}
        }
        says_something = true;
    }
    says_something.then_some((end, colon))
}

/// Patterns with commas between them, outside of quotes.
fn list(text: &str) -> Result<Vec<Draft>, Fault> {
    let (mut is_quoted, mut start) = (false, 0);
    let mut patterns = Vec::new();
    for (at, byte) in text.bytes().chain([b',']).enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            // The one behind the end counts in any case.
            b',' if !is_quoted || at == text.len() => {
                patterns.extend(pattern(&text[start..at], text)?);
                start = at + 1;
            }
            _ => {}
        }
    }
    Ok(patterns)
}

/// One pattern, with or without quotes.
fn pattern(word: &str, list: &str) -> Result<Option<Draft>, Fault> {
    let blank = |c| matches!(c, ' ' | '\t');
    let bare = word.trim_matches(blank);
    let bare = bare.strip_prefix('"').unwrap_or(bare);
    let bare = bare.strip_suffix('"').unwrap_or(bare);
    if bare.is_empty() {
        return Err(fault(
            list,
            "has an empty pattern in it",
            "write a pattern between the commas, or ALL for everything",
        ));
    }
    if bare.len() > LONGEST_PATTERN {
        let found = format!("has {} bytes", bare.len());
        return Err(fault(bare, &found, "keep a pattern to 255 bytes"));
    }
    Draft::new(bare, Syntax::Extended).map_err(|error| fault(bare, &error.fault, error.mend))
}

fn fault(value: &str, fault: &str, mend: &str) -> Fault {
    Fault {
        value: crate::row::shown(value),
        fault: fault.to_owned(),
        mend: mend.to_owned(),
    }
}
