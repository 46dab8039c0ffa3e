//! The identifier of a decision.

use std::fmt;

/// Identifies one decision in log lines, in records and, if configured, in a header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecisionId {
    /// A random number drawn when the host starts.
    pub start: u32,
    /// The number of the decision since the start.
    pub number: u64,
}

/// Displays as `3fa9c0d1-2f`: both numbers in hexadecimal.
impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:x}", self.start, self.number)
    }
}
