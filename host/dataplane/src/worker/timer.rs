//! The timer of a worker's transactions.

use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::Instant;

/// When the timer task of a worker wakes up.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    /// The deadline that the task sleeps until.
    armed: Option<Instant>,
    is_earlier: Rc<Notify>,
}

impl Timer {
    /// Wakes the task up because there is an earlier deadline.
    pub(super) fn is_earlier(&self) -> Rc<Notify> {
        Rc::clone(&self.is_earlier)
    }

    /// Notes the deadline that the task sleeps until.
    pub(super) fn arm(&mut self, deadline: Option<Instant>) {
        self.armed = deadline;
    }

    /// Wakes the task up if it would sleep beyond this deadline.
    pub(super) fn wake_for(&mut self, deadline: Instant) {
        if self.armed.is_none_or(|armed| deadline < armed) {
            self.armed = Some(deadline);
            self.is_earlier.notify_one();
        }
    }
}
