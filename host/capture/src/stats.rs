//! Statistics of captured messages.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Statistics of captured messages.
#[derive(Debug, Default)]
pub struct CaptureStats {
    pub(crate) sent: AtomicU64,
    /// Lost: the thread was too slow.
    pub(crate) too_fast: AtomicU64,
    /// Lost: too long for a datagram.
    pub(crate) too_long: AtomicU64,
    /// Lost: the system refused to send.
    pub(crate) failed: AtomicU64,
    /// Bytes that wait for the thread.
    pub(crate) waiting: AtomicUsize,
}

impl CaptureStats {
    /// The number of packets sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The number of lost packets by reason.
    pub fn lost(&self) -> [(&'static str, u64); 3] {
        [
            ("queue", self.too_fast.load(Ordering::Relaxed)),
            ("size", self.too_long.load(Ordering::Relaxed)),
            ("error", self.failed.load(Ordering::Relaxed)),
        ]
    }
}
