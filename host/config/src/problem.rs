//! Problems in a configuration file, each with its position and how to correct it.

use std::fmt;
use std::path::PathBuf;

use portcullis_text::clean;

use super::shape::Shape;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}; name another file with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file contains invalid values.
    #[error("{}", Listing(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every problem in the file, in the order of its lines.
        problems: Vec<Problem>,
    },
    /// A variable of the environment has an invalid value, which is not shown: it may contain a password.
    #[error(
        "the environment variable {name}: {cause}; correct it, or unset it to use the configuration file"
    )]
    Environment {
        /// The variable.
        name: &'static str,
        /// What is wrong.
        cause: String,
    },
}

impl ConfigError {
    /// Returns one line for each problem.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Unreadable { .. } | Self::Environment { .. } => vec![self.to_string()],
            Self::Invalid { path, problems } => problems
                .iter()
                .map(|problem| format!("{}:{problem}", path.display()))
                .collect(),
        }
    }
}

/// One problem in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line number, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key with its section, for example `policy.deadline`; empty if the file is not TOML.
    pub key: String,
    /// The value as it is written in the file, shortened; empty if there is none.
    pub value: String,
    /// What is wrong.
    pub what: String,
    /// How to correct it.
    pub mend: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        match (self.key.as_str(), self.value.as_str()) {
            ("", _) => {}
            (key, "") => write!(f, "{key}: ")?,
            (key, value) => write!(f, "{key} = {value}: ")?,
        }
        f.write_str(&self.what)?;
        match self.mend.as_str() {
            "" => Ok(()),
            mend => write!(f, "; {mend}"),
        }
    }
}

/// What is wrong with a value, without its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// What is wrong.
    pub what: String,
    /// How to correct it.
    pub mend: String,
    /// Whether the value is a secret, or contains one.
    pub(crate) hidden: bool,
    /// Which values the key may have, if the parser states it.
    pub(crate) shape: Option<Shape>,
}

impl Bad {
    pub(crate) fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            mend: mend.into(),
            hidden: false,
            shape: None,
        }
    }

    /// Marks the value as one that must not be shown.
    pub(crate) fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// States which values the key may have.
    pub(crate) fn shaped(mut self, shape: Shape) -> Self {
        self.shape = Some(shape);
        self
    }
}

/// Returns line and column of a byte offset, both from 1.
pub(super) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

struct Listing<'a>(&'a PathBuf, &'a [Problem]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(path, problems) = self;
        match problems.len() {
            1 => f.write_str("the configuration has a problem:")?,
            n => write!(f, "the configuration has {n} problems:")?,
        }
        problems.iter().try_for_each(|problem| {
            let line = format!("{}:{problem}", path.display());
            write!(f, "\n  {}", clean(&line))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters() {
        let text = "a = 1\nß = 2\n";
        assert_eq!(place(text, 0), (1, 1));
        assert_eq!(place(text, 6), (2, 1));
        assert_eq!(place(text, 9), (2, 3));
        assert_eq!(place(text, 99), (3, 1));
    }
}
