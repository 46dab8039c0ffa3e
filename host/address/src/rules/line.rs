//! One line of an allow or deny file: `left [EXCEPT left] : right [EXCEPT right]`, each a comma-separated list of patterns.
//!
//! Lines are parsed as by Kamailio (`permissions/parse_config.c`), including its peculiarities: the last colon outside quotes separates the
//! sides; ` EXCEPT ` counts within quotes too; a word without quotes is a pattern. Only the length of a line is not limited: Kamailio would
//! parse the rest after 499 bytes as another line, and skipping a long line of a deny file would allow what it denies.

use crate::pattern::{Draft, PatternError, Syntax};

/// The longest pattern, in bytes.
const LONGEST_PATTERN: usize = 255;

const EXCEPT: &str = " EXCEPT ";

/// Most patterns of a list that have bits of their own. In a longer list, several patterns are combined into one that matches where any of
/// them does.
const MOST_IN_LIST: usize = 16;

/// A parsed line.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) left: Side,
    pub(super) right: Side,
}

/// One side of a line.
#[derive(Debug)]
pub(super) struct Side {
    /// One of these must match; empty means `ALL`. None of the patterns is empty.
    pub(super) patterns: Vec<Draft>,
    /// None of these may match.
    pub(super) except: Vec<Draft>,
}

/// The error of a line.
#[derive(Debug)]
pub(super) struct Fault {
    /// The invalid part.
    pub(super) value: String,
    pub(super) fault: String,
    pub(super) mend: String,
}

impl Rule {
    /// Parses a line; `None` for an empty line or a comment.
    pub(super) fn parse(line: &[u8]) -> Result<Option<Self>, Fault> {
        let Some((end, colon)) = extent(line) else {
            return Ok(None);
        };
        // The encoding of a comment does not matter.
        let Ok(line) = std::str::from_utf8(&line[..end]) else {
            let line = String::from_utf8_lossy(line);
            return Err(fault(&line, "is not text", "write it in UTF-8"));
        };
        let mend = "write LEFT : RIGHT, each a list of patterns in quotes, or ALL";
        let Some(colon) = colon else {
            return Err(fault(line, "has no colon outside quotes", mend));
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

    /// Returns the least memory of its patterns, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let sides = [&self.left, &self.right].into_iter();
        let drafts = sides.flat_map(|side| side.patterns.iter().chain(&side.except));
        drafts.map(Draft::bytes).sum()
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

    /// Creates a side of these lists.
    ///
    /// # Errors
    /// If a list takes too much memory.
    fn new(patterns: Vec<Draft>, except: Vec<Draft>) -> Result<Self, PatternError> {
        Ok(Self {
            patterns: joined(patterns)?,
            except: joined(except)?,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.patterns.len() + self.except.len()
    }
}

/// Returns where the line ends or its comment begins, and the last colon outside quotes; `None` for an empty line.
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

/// Parses patterns separated by commas outside quotes.
fn list(text: &str) -> Result<Vec<Draft>, Fault> {
    let (mut is_quoted, mut start) = (false, 0);
    let mut patterns = Vec::new();
    for (at, byte) in text.bytes().chain([b',']).enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            // The end of the text also ends a pattern.
            b',' if !is_quoted || at == text.len() => {
                patterns.extend(pattern(&text[start..at], text)?);
                start = at + 1;
            }
            _ => {}
        }
    }
    Ok(patterns)
}

/// Parses one pattern, with or without quotes.
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
        return Err(fault(bare, &found, "use at most 255 bytes"));
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

/// Combines the patterns into at most [`MOST_IN_LIST`], each of which matches where any of its parts does.
fn joined(drafts: Vec<Draft>) -> Result<Vec<Draft>, PatternError> {
    if drafts.len() <= MOST_IN_LIST {
        return Ok(drafts);
    }
    let together = drafts.len().div_ceil(MOST_IN_LIST);
    drafts.chunks(together).map(Draft::any).collect()
}
