//! Statistics of what is exported.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Destinations by name, with their statistics.
pub type Exports = Vec<(&'static str, Arc<ExportStats>)>;

/// Statistics of one destination.
#[derive(Debug, Default)]
pub struct ExportStats {
    pub(crate) sent: AtomicU64,
    /// Lost: the thread or the server was too slow.
    pub(crate) too_fast: AtomicU64,
    /// Lost: the server did not accept it.
    pub(crate) failed: AtomicU64,
    /// Bytes that wait for the thread.
    pub(crate) waiting: AtomicUsize,
}

impl ExportStats {
    /// The number of items delivered.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The number of lost items by reason.
    pub fn lost(&self) -> [(&'static str, u64); 2] {
        [
            ("queue", self.too_fast.load(Ordering::Relaxed)),
            ("error", self.failed.load(Ordering::Relaxed)),
        ]
    }
}
