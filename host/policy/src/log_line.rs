//! Log lines of a policy, for callers that keep them.

use tracing::Level;

/// A log line of a policy call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The level.
    pub level: Level,
    /// The text, as the log of a host shows it: cut, and without control characters.
    pub text: String,
}

/// For people: `warn: source is flooding`.
impl std::fmt::Display for LogLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        write!(f, "{level}: {}", self.text)
    }
}
