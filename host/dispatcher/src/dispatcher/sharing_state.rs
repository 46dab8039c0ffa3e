//! What a dispatcher keeps of the calls that the hosts of a fleet count together.

use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use portcullis_rate::Journal;

use crate::shared_loads::SharedLoads;

/// What other hosts are told of calls, and what they have told.
#[derive(Debug)]
pub(super) struct Sharing {
    /// Only the control side locks it.
    pub(super) loads: Mutex<SharedLoads>,
    /// Calls that workers have ended and this host does not count.
    pub(super) ended: Journal,
    /// Whether another host has calls.
    pub(super) has_others: AtomicBool,
}
