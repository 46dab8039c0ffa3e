//! Progress of a start.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of policies that are ready, of those that a start loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Policies that are active, and those that turned out to be unusable.
    pub done: usize,
    /// All.
    pub total: usize,
}

/// Counts the progress of a start; empty if no start is in progress.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    left: AtomicUsize,
    total: AtomicUsize,
}

impl Loading {
    pub(crate) fn begin(&self, total: usize) {
        self.total.store(total, Ordering::Relaxed);
        self.left.store(total, Ordering::Relaxed);
    }

    /// Counts one more policy. Has no effect outside a start.
    pub(crate) fn step(&self) {
        let one_less = |left: usize| left.checked_sub(1);
        let _none_left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }

    pub(crate) fn end(&self) {
        self.left.store(0, Ordering::Relaxed);
    }

    pub(crate) fn progress(&self) -> Option<Progress> {
        let (left, total) = (
            self.left.load(Ordering::Relaxed),
            self.total.load(Ordering::Relaxed),
        );
        (left > 0).then(|| Progress {
            done: total.saturating_sub(left),
            total,
        })
    }
}

/// `212 of 1000 policies ready`
impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} policies ready", self.done, self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_reported_until_all_policies_are_done() {
        let loading = Loading::default();
        loading.step();
        assert_eq!(loading.progress(), None);
        loading.begin(2);
        let told = |loading: &Loading| loading.progress().map(|progress| progress.to_string());
        assert_eq!(told(&loading).as_deref(), Some("0 of 2 policies ready"));
        loading.step();
        assert_eq!(told(&loading).as_deref(), Some("1 of 2 policies ready"));
        loading.step();
        assert_eq!(told(&loading), None);
        loading.begin(0);
        assert_eq!(told(&loading), None);
    }
}
