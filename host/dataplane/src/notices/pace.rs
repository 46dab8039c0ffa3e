//! The rate at which one kind of notice is logged.

use std::time::{Duration, Instant};

/// Interval between two lines of the same kind.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);

/// When a line of a kind was last logged, and the count at that time.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    told_at: Option<Instant>,
    told: u64,
}

impl Pace {
    /// The number of new occurrences to log now, if a line is due: the first one immediately, later ones together at the end of the
    /// interval.
    pub(crate) fn due(&mut self, total: u64, now: Instant) -> Option<u64> {
        let new = total.checked_sub(self.told).filter(|&new| new > 0)?;
        let is_early = |at| now.saturating_duration_since(at) < INTERVAL;
        if self.told_at.is_some_and(is_early) {
            return None;
        }
        self.told = total;
        self.told_at = Some(now);
        Some(new)
    }

    /// Suppresses lines until the end of an interval that begins now, unless one has already begun.
    pub(crate) fn hold(&mut self, now: Instant) {
        let is_running = |at| now.saturating_duration_since(at) < INTERVAL;
        if !self.told_at.is_some_and(is_running) {
            self.told_at = Some(now);
        }
    }

    /// Whether there are occurrences that a later line will report.
    pub(crate) fn is_pending(&self, total: u64) -> bool {
        total > self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_together() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        assert_eq!(pace.due(0, at(0)), None);
        assert_eq!(pace.due(1, at(1)), Some(1));
        assert!(!pace.is_pending(1));
        assert_eq!(pace.due(5, at(2)), None);
        assert!(pace.is_pending(5));
        assert_eq!(pace.due(900, at(60)), None);
        assert_eq!(pace.due(900, at(61)), Some(899));
        assert_eq!(pace.due(900, at(200)), None);
        assert_eq!(
            pace.due(901, at(201)),
            Some(1),
            "after a pause at once again"
        );
        pace.hold(at(300));
        pace.hold(at(330));
        assert_eq!(pace.due(903, at(330)), None);
        assert_eq!(pace.due(903, at(360)), Some(2));
    }
}
