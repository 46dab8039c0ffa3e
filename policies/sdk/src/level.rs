//! Severities of log lines.

/// The severity of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// An error.
    Error,
    /// A condition that needs attention.
    Warn,
    /// A normal event.
    Info,
    /// A detail for the policy's author.
    Debug,
}
