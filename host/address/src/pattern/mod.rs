//! POSIX regular expressions, as Kamailio's `permissions` module has them in its table and files, compiled once.
//!
//! Kamailio hands its patterns to the C library. Here they are translated ([`parse`]) for an engine whose time grows with the text
//! and never explodes. A pattern means what it means to the GNU C library in the locale "C", which is Kamailio's: texts are bytes,
//! case is that of ASCII. Only back-references can't be translated, and are an error.

mod bracket;
mod parse;
mod set;

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};
use thiserror::Error;

/// The memory that one compiled pattern may take, in bytes.
const MOST_MEMORY: usize = 1 << 20;

/// The memory that a worker may use to run one pattern faster, in bytes.
const MOST_CACHE: usize = 256 << 10;

/// The longest pattern, in bytes. Kamailio's columns hold 64 characters, its files 255 bytes.
const LONGEST: usize = 4096;

/// Which of the two languages of POSIX a pattern is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// Basic, with case: the columns of the table `trusted`.
    Basic,
    /// Extended, without case: the files of rules.
    Extended,
}

/// A compiled pattern.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    /// None for a pattern that matches every text.
    regex: Option<Regex>,
}

/// Why a pattern can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{fault}; {mend}")]
pub struct PatternError {
    /// What is wrong with it.
    pub fault: String,
    /// What to do about it.
    pub mend: &'static str,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// When the C library would refuse it too, when it has a back-reference, or when it takes too much memory.
    pub fn new(text: &str, syntax: Syntax) -> Result<Self, PatternError> {
        let pattern = |regex| Self {
            text: text.into(),
            regex,
        };
        if text.is_empty() {
            return Ok(pattern(None));
        }
        if text.len() > LONGEST {
            return Err(PatternError {
                fault: format!("has {} bytes", text.len()),
                mend: "keep a pattern to 4096 bytes",
            });
        }
        let translated = parse::translate(text.as_bytes(), syntax)?;
        let regex = RegexBuilder::new(&translated)
            .unicode(false)
            .dot_matches_new_line(true)
            .size_limit(MOST_MEMORY)
            .dfa_size_limit(MOST_CACHE)
            .build()
            .map_err(|_| PatternError {
                fault: "takes too much memory".to_owned(),
                mend: "repeat less, or use more than one pattern",
            })?;
        Ok(pattern(Some(regex)))
    }

    /// Whether the pattern is found anywhere in the text.
    #[inline]
    pub fn is_match(&self, text: &str) -> bool {
        let regex = self.regex.as_ref();
        regex.is_none_or(|regex| regex.is_match(text.as_bytes()))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests;
