//! Errors of patterns.

use thiserror::Error;

/// Why a pattern is invalid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{fault}; {mend}")]
pub struct PatternError {
    /// What is wrong.
    pub fault: String,
    /// How to correct it.
    pub mend: &'static str,
}

/// An error that the C library would report, too.
pub(super) fn invalid(fault: &str) -> PatternError {
    PatternError {
        fault: fault.to_owned(),
        mend: "write a POSIX regular expression; a backslash before a special character makes it literal",
    }
}
