//! What is wrong with a pattern.

use thiserror::Error;

/// Why a pattern can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{fault}; {mend}")]
pub struct PatternError {
    /// What is wrong with it.
    pub fault: String,
    /// What to do about it.
    pub mend: &'static str,
}

/// What the C library would refuse, too.
pub(super) fn invalid(fault: &str) -> PatternError {
    PatternError {
        fault: fault.to_owned(),
        mend: "write a regular expression as in POSIX; a backslash makes a character of a sign",
    }
}
