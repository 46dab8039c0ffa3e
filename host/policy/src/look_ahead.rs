//! Reads memory before it is needed.
//!
//! A processor waits for memory that is in none of its near caches, unless it knows early enough what comes next. A host with many tenants finds
//! little of a tenant there when its request comes. Reads that do not depend on each other overlap, so reading first what all requests of a
//! batch will need takes a fraction of the time that the calls would wait for it.

use std::hint::black_box;

/// Bytes of a cache line.
const LINE: usize = 64;

/// The values that have been read. Their sum keeps the compiler from leaving the reads out.
#[derive(Default)]
pub(crate) struct Lines {
    sum: usize,
}

impl Lines {
    /// Reads the line of a value.
    #[inline]
    pub(crate) fn read(&mut self, value: impl TryInto<usize>) {
        self.sum ^= value.try_into().unwrap_or(0);
    }

    /// Reads all lines of these bytes.
    #[inline]
    pub(crate) fn read_all(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().step_by(LINE) {
            self.sum ^= usize::from(*byte);
        }
        if let Some(byte) = bytes.last() {
            self.sum ^= usize::from(*byte);
        }
    }

    /// Ends the reading.
    pub(crate) fn end(self) {
        black_box(self.sum);
    }
}
