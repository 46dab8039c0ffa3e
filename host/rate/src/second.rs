//! The unit of time.

/// In nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
