//! The result of a call.

use crate::Verdict;
use crate::log::Level;

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The verdict of the policy.
    pub verdict: Verdict,
    /// The log lines of the policy, oldest first.
    pub log: Vec<Line>,
    /// The header changes, in order. They take effect only if the request is finally relayed.
    pub edits: Vec<Edit>,
}

/// A change to a header field of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Edit {
    /// Adds a header field after all others.
    Add {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Removes all header fields with this name.
    Remove {
        /// The name.
        name: String,
    },
}

impl Edit {
    /// The change made by [`add_header`](crate::edits::add_header).
    pub fn add(name: &str, value: &str) -> Self {
        Self::Add {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    /// The change made by [`remove_header`](crate::edits::remove_header).
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
    /// Its severity.
    pub level: Level,
    /// The text.
    pub message: String,
}
