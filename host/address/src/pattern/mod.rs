//! POSIX regular expressions, as Kamailio's `permissions` module has them in its table and files, compiled once.
//!
//! Kamailio passes its patterns to the C library. Here they are translated ([`parse`]) to automata whose time is linear in the length of
//! the text ([`engine`]). A pattern has the same meaning as in the GNU C library in the locale "C", which Kamailio uses: texts are bytes,
//! and case is that of ASCII. Only back-references cannot be translated, and are an error.
//!
//! Rows and lines have many patterns. They are drafted one by one ([`Draft`]), which finds the errors of each, and combined into sets that
//! are matched at once ([`bank`]), within a memory limit for all of them ([`budget`]).

pub(crate) mod bank;
mod bracket;
mod budget;
mod effort;
mod engine;
mod error;
mod parse;
mod set;

use std::fmt;

pub use budget::{DEFAULT_PATTERN_MEMORY, PatternBudget};
pub use effort::{Effort, STEPS_PER_LOOK, Spent};
pub use error::PatternError;
pub use parse::Syntax;

use engine::Engine;

use crate::turns;

/// The longest pattern, in bytes. Kamailio's columns hold 64 characters, its files 255 bytes.
const LONGEST: usize = 4096;

/// A compiled pattern.
pub struct Pattern {
    text: Box<str>,
    /// `None` for a pattern that matches every text.
    engine: Option<Engine>,
}

/// A pattern that can be compiled.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    /// In the engine's syntax.
    translated: Box<str>,
    bytes: usize,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// If the C library would refuse it too, it has a back-reference, or it takes too much memory.
    pub fn new(text: &str, syntax: Syntax) -> Result<Self, PatternError> {
        let draft = Draft::new(text, syntax)?;
        let engine = match draft {
            Some(draft) => {
                let engine = Engine::alone(&draft.translated, &mut PatternBudget::default());
                Some(engine.ok_or_else(too_large)?)
            }
            None => None,
        };
        Ok(Self {
            text: text.into(),
            engine,
        })
    }

    /// Whether the pattern matches anywhere in the text. The time is not limited: not for the path of a message.
    pub fn is_match(&self, text: &str) -> bool {
        let found = self.is_found(text, &mut Effort::unbounded());
        found.unwrap_or_default()
    }

    /// Whether the pattern matches anywhere in the text.
    ///
    /// # Errors
    /// If that takes too long.
    pub fn is_found(&self, text: &str, effort: &mut Effort<'_>) -> Result<bool, Spent> {
        match &self.engine {
            Some(engine) => Ok(engine.found(1, text.as_bytes(), effort)? != 0),
            None => Ok(true),
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Draft {
    /// Parses a pattern; `None` for one that matches every text.
    ///
    /// # Errors
    /// See [`Pattern::new`].
    pub(crate) fn new(text: &str, syntax: Syntax) -> Result<Option<Self>, PatternError> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > LONGEST {
            return Err(PatternError {
                fault: format!("has {} bytes", text.len()),
                mend: "use at most 4096 bytes",
            });
        }
        let translated = parse::translate(text.as_bytes(), syntax)?;
        Self::of(translated.into()).map(Some)
    }

    /// Returns a pattern that matches where any of these does.
    ///
    /// # Errors
    /// If they take too much memory together.
    pub(crate) fn any<'d>(
        drafts: impl IntoIterator<Item = &'d Self>,
    ) -> Result<Self, PatternError> {
        let translated = drafts
            .into_iter()
            .map(|draft| format!("(?:{})", draft.translated));
        let translated: Vec<_> = translated.collect();
        Self::of(translated.join("|").into())
    }

    fn of(translated: Box<str>) -> Result<Self, PatternError> {
        let states = engine::states(&[&translated]).ok_or_else(too_large)?;
        turns::give_way();
        Ok(Self {
            bytes: states.memory_usage() + translated.len(),
            translated,
        })
    }

    /// Returns the least memory of the pattern, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn translated(&self) -> &str {
        &self.translated
    }
}

/// Error for a pattern that takes too much memory.
pub(crate) const TOO_LARGE: &str = "takes too much memory";

fn too_large() -> PatternError {
    PatternError {
        fault: TOO_LARGE.to_owned(),
        mend: "use fewer repetitions, or several patterns",
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests;
