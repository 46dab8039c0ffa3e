//! Statistics of records.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

/// Statistics of records.
#[derive(Debug, Default)]
pub struct RecordStats {
    pub(super) written: AtomicU64,
    /// Lost: above the rate.
    pub(super) too_many: AtomicU64,
    /// Lost: the writer was too slow.
    pub(super) too_fast: AtomicU64,
    /// Lost: longer than a line may be.
    pub(super) too_long: AtomicU64,
    /// Lost: the file could not be written.
    pub(super) failed: AtomicU64,
    /// Bytes that wait for the writer.
    pub(super) waiting: AtomicUsize,
    pub(super) trouble: Mutex<Trouble>,
}

/// State of the file.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// The current error; `None` while the file can be written.
    pub(super) error: Option<String>,
    /// Time of the last log line about an error.
    pub(super) reported_at: Option<Instant>,
    /// Whether the log has reported the current error.
    pub(super) is_reported: bool,
}

impl RecordStats {
    /// Returns the number of records in the file.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Returns the number of lost records by reason.
    pub fn lost(&self) -> [(&'static str, u64); 4] {
        [
            ("rate", self.too_many.load(Ordering::Relaxed)),
            ("queue", self.too_fast.load(Ordering::Relaxed)),
            ("line", self.too_long.load(Ordering::Relaxed)),
            ("error", self.failed.load(Ordering::Relaxed)),
        ]
    }

    /// Returns the bytes of the records that wait for the writer.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Returns the current error of the file; `None` while it can be written.
    pub fn error(&self) -> Option<String> {
        self.trouble.lock().error.clone()
    }
}
