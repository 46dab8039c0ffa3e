//! The timer of a worker's transactions.

use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::Instant;

/// When the timer task of a worker wakes up.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    /// The deadline that the task sleeps until.
    pub(super) armed: Option<Instant>,
    /// Wakes the task up because there is an earlier deadline.
    pub(super) is_earlier: Rc<Notify>,
}
