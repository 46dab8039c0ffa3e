//! How important lines of the log are.

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Something is broken.
    Error,
    /// Something deserves attention.
    Warn,
    /// Something happened.
    Info,
    /// Something for the policy's author.
    Debug,
}
