//! How far a start is.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many policies have come, of those that a start loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Those that serve, and those that turned out to be unusable.
    pub done: usize,
    /// All.
    pub total: usize,
}

/// [`Progress`] as it is counted; nothing is left where no start is under way.
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

    /// One more is done. Nothing outside of a start.
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
    fn progress_is_told_while_something_is_left() {
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
