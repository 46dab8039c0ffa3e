//! What is wrong with a pattern.

use super::PatternError;

/// What the C library would refuse, too.
pub(super) fn invalid(fault: &str) -> PatternError {
    PatternError {
        fault: fault.to_owned(),
        mend: "write a regular expression as in POSIX; a backslash makes a character of a sign",
    }
}
