//! What comes out of a call.

use crate::Verdict;
use crate::log::Level;

/// What came out of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The policy's answer.
    pub verdict: Verdict,
    /// What the policy logged, oldest first.
    pub log: Vec<Line>,
    /// The changes to the header, in order. They are made only if the request is relayed in the end.
    pub edits: Vec<Edit>,
}

/// A change to the header of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Edit {
    /// A header field behind all others.
    Add {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// All header fields of this name go.
    Remove {
        /// The name.
        name: String,
    },
}

impl Edit {
    /// What [`add_header`](crate::edits::add_header) does.
    pub fn add(name: &str, value: &str) -> Self {
        Self::Add {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    /// What [`remove_header`](crate::edits::remove_header) does.
    pub fn remove(name: &str) -> Self {
        Self::Remove {
            name: name.to_owned(),
        }
    }
}

impl Outcome {
    /// The texts of the log lines, oldest first.
    pub fn messages(&self) -> Vec<&str> {
        self.log.iter().map(|line| line.message.as_str()).collect()
    }
}

/// One line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// How important it is.
    pub level: Level,
    /// The text.
    pub message: String,
}
