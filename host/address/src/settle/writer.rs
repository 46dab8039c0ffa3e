//! Whether a file is being written.

/// State of a file by its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// The file system has no events.
    Unknown,
    /// There has been no event about this file.
    Unheard,
    /// A writer has it open.
    Open,
    /// The last writer has closed it.
    Closed,
    /// It was renamed to this name.
    Moved,
}
