//! The times that something took each time, for a report.

use std::time::Duration;

use serde::Serialize;

/// The median and the maximum of several times, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Times {
    /// Median.
    pub(crate) median: f64,
    /// Maximum.
    pub(crate) worst: f64,
}

impl Times {
    /// `None` without any time.
    pub(crate) fn of(all: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut all: Vec<Duration> = all.into_iter().collect();
        all.sort();
        Some(Self {
            median: milliseconds(*all.get(all.len() / 2)?),
            worst: milliseconds(*all.last()?),
        })
    }
}

/// A time as reports have it.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_median_and_a_maximum() {
        let expected = Times {
            median: 200.0,
            worst: 300.0,
        };
        let times = [300, 100, 200].map(Duration::from_millis);
        assert_eq!(Times::of(times), Some(expected));
        assert_eq!(Times::of([]), None);
    }
}
