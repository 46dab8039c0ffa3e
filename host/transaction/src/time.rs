//! Time as the caller counts it.

use std::ops::Add;
use std::time::Duration;

/// A time: milliseconds since a start that the caller chooses. It never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The start.
    pub const ZERO: Self = Self(0);

    /// The time this many milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the start.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time since an earlier one; zero if that one is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Fractions of a millisecond are rounded up: a timer never fires too early.
impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = duration.as_nanos().div_ceil(1_000_000);
        Self(
            self.0
                .saturating_add(u64::try_from(millis).unwrap_or(u64::MAX)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_of_a_millisecond_is_rounded_up() {
        let start = Time::from_millis(5);
        assert_eq!(start + Duration::from_micros(1), Time::from_millis(6));
        assert_eq!(start + Duration::from_millis(1), Time::from_millis(6));
        assert_eq!(start + Duration::MAX, Time::from_millis(u64::MAX));
    }

    #[test]
    fn time_since_a_later_time_is_zero() {
        let (early, late) = (Time::from_millis(5), Time::from_millis(9));
        assert_eq!(late.since(early), Duration::from_millis(4));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
