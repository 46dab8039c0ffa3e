//! Why nothing can be exported.

use thiserror::Error;

/// Why nothing can be exported.
#[derive(Debug, Error)]
pub enum ExportError {
    /// A thread cannot be started.
    #[error("the thread that exports {what} cannot be started: {source}")]
    Thread {
        /// What it exports.
        what: &'static str,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file of events cannot be opened.
    #[error("[events] file: cannot write {path}: {source}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
}
