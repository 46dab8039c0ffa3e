//! What a policy does besides its result.

use crate::log::Level;

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

/// One line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// Its severity.
    pub level: Level,
    /// The text.
    pub message: String,
}
