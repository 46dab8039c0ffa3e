//! Times in whole seconds.

use std::time::Duration;

use portcullis_rate::SECOND;

/// Seconds since the start of the clock.
#[inline]
pub(crate) fn second(nanoseconds: u64) -> u32 {
    u32::try_from(nanoseconds / SECOND).unwrap_or(u32::MAX)
}

pub(crate) fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
