//! What a dispatcher keeps of the calls that the hosts of a fleet count together.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use portcullis_rate::Journal;

use crate::sets::Sets;
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

impl Sharing {
    /// Lets workers see what is known of the other hosts.
    pub(super) fn publish(&self, loads: &SharedLoads, sets: &Sets) {
        loads.publish(sets);
        self.has_others.store(loads.has_others(), Ordering::Relaxed);
    }
}
