//! What decisions are called.

use std::fmt;

/// The name of one decision: in log lines, in records, and in a header field where that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecisionId {
    /// The same for all decisions from start to end of a host, and another one for other hosts and starts, by chance.
    pub start: u32,
    /// Counts the decisions of one start.
    pub number: u64,
}

/// `3fa9c0d1-2f`
impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:x}", self.start, self.number)
    }
}
