//! What became of the records.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

/// What became of the records.
#[derive(Debug, Default)]
pub struct Told {
    pub(super) written: AtomicU64,
    /// Beyond the rate.
    pub(super) too_many: AtomicU64,
    /// The writer was too slow.
    pub(super) too_fast: AtomicU64,
    /// Longer than a line may be.
    pub(super) too_long: AtomicU64,
    /// The file could not be written.
    pub(super) failed: AtomicU64,
    /// Bytes that wait for the writer.
    pub(super) waiting: AtomicUsize,
    pub(super) trouble: Mutex<Trouble>,
}

/// What is wrong with the file.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// None while it can be written.
    pub(super) error: Option<String>,
    /// When the log had a line about it last.
    pub(super) told_at: Option<Instant>,
    /// Whether that line still stands.
    pub(super) is_told: bool,
}

impl Told {
    /// Records in the file.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Why, and how many decisions were not written down that were in the share.
    pub fn lost(&self) -> [(&'static str, u64); 4] {
        [
            ("rate", self.too_many.load(Ordering::Relaxed)),
            ("queue", self.too_fast.load(Ordering::Relaxed)),
            ("line", self.too_long.load(Ordering::Relaxed)),
            ("error", self.failed.load(Ordering::Relaxed)),
        ]
    }

    /// Bytes of the records that wait for the writer.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Why the file can't be written at the moment; none while it can.
    pub fn error(&self) -> Option<String> {
        self.trouble.lock().error.clone()
    }
}
