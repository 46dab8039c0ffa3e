//! One line of an allow or deny file: `left [EXCEPT left] : right [EXCEPT right]`, each a list of patterns with commas between.
//!
//! Read as Kamailio reads it (`permissions/parse_config.c`), with its odd corners: the last colon outside of quotes divides the
//! sides; ` EXCEPT ` counts within quotes too; a word without quotes is a pattern. Only the length of a line has no limit: Kamailio
//! takes what is behind 499 bytes for another line, and to leave a long line out of a deny file would allow what it denies.

use crate::pattern::{Draft, PatternError, Syntax};

/// The longest pattern, in bytes.
const LONGEST_PATTERN: usize = 255;

const EXCEPT: &str = " EXCEPT ";

/// The most patterns of a list that have a bit of their own. Of a longer list some go together, as one that is found where any of them is.
const MOST_IN_LIST: usize = 16;

/// One line as it was read.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) left: Side,
    pub(super) right: Side,
}

/// One side of it.
#[derive(Debug)]
pub(super) struct Side {
    /// One of them has to be found; none of them stand for `ALL`. None of these is empty.
    pub(super) patterns: Vec<Draft>,
    /// None of them may be found.
    pub(super) except: Vec<Draft>,
}

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

    /// The memory that its patterns take at least, in bytes.
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

    /// A side of these lists.
    ///
    /// # Errors
    /// When a list is so long that it takes too much memory.
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

/// No more than [`MOST_IN_LIST`] patterns that are found where any of these is.
fn joined(drafts: Vec<Draft>) -> Result<Vec<Draft>, PatternError> {
    if drafts.len() <= MOST_IN_LIST {
        return Ok(drafts);
    }
    let together = drafts.len().div_ceil(MOST_IN_LIST);
    drafts.chunks(together).map(Draft::any).collect()
}
