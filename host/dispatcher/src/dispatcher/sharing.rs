//! Calls that the hosts of a fleet count together.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use portcullis_rate::{Journal, Noted};
use siphasher::sip::SipHasher24;

use super::Dispatcher;
use super::sharing_state::Sharing;
use crate::calls::{CallKey, CountedCall};
use crate::shared_loads::Item;

/// Ends of calls between two exchanges that other hosts are told of.
const NOTES: usize = 4_096;

impl Dispatcher {
    /// Counts calls together with other hosts. With the same key, a call may end on any of them. Before the first call.
    pub fn share_loads(&self, key: &[u8; 16]) {
        // Others see keys of calls, which must say nothing about the key.
        let hasher = SipHasher24::new_with_key(key);
        let secret = [&b"dispatcher calls 1"[..], b"dispatcher calls 2"];
        self.calls().share(secret.map(|part| hasher.hash(part)));
        let sharing = Sharing {
            loads: Mutex::default(),
            ended: Journal::new(NOTES),
            has_others: AtomicBool::new(false),
        };
        let _shared_before = self.shared.sharing.set(sharing);
    }

    /// At most this many items for the other hosts that have not been taken. `unix` is the time in milliseconds since 1970. For the control side.
    pub fn take_loads(&self, most: usize, unix: u64) -> Vec<Item> {
        let Some(sharing) = self.shared.sharing.get() else {
            return Vec::new();
        };
        let sets = self.current();
        let mut loads = sharing.loads.lock();
        let Noted {
            numbers,
            is_incomplete,
        } = sharing.ended.take();
        loads.note_ended(&numbers, is_incomplete);
        // A load of the sets begins without the calls of others.
        sharing.publish(&loads, &sets);
        loads.take(&sets, most, unix)
    }

    /// Takes over what the other hosts have in total: calls to destinations, and calls that have ended there. For the control side.
    pub fn merge_loads(&self, items: &[Item]) {
        let Some(sharing) = self.shared.sharing.get() else {
            return;
        };
        let sets = self.current();
        let mut loads = sharing.loads.lock();
        for call in loads.merge(items) {
            self.calls().end(CallKey::of_number(call), &sets);
        }
        sharing.publish(&loads, &sets);
    }

    /// Notes how many hosts take part in the exchange, with this one; `None` if the others are not heard. For the control side.
    pub fn set_hosts(&self, hosts: Option<usize>) {
        if let Some(sharing) = self.shared.sharing.get() {
            let mut loads = sharing.loads.lock();
            loads.set_hosts(hosts);
            sharing.publish(&loads, &self.current());
        }
    }

    /// Ends calls of this process that another process of this host counts from now on, if calls are shared: otherwise the other hosts would hear of them
    /// twice until this process has ended. For the control side.
    pub fn hand_over_calls(&self, calls: &[CountedCall]) {
        if self.shared.sharing.get().is_none() {
            return;
        }
        let sets = self.current();
        for call in calls {
            self.calls().end(CallKey::of_number(call.key), &sets);
        }
    }

    /// Number of calls of other hosts, and of items for which there was no room; `None` if calls are not shared.
    pub fn calls_of_others(&self) -> Option<(u64, u64)> {
        let loads = self.shared.sharing.get()?.loads.lock();
        Some((loads.calls_of_others(), loads.dropped()))
    }

    #[inline]
    pub(super) fn has_calls_of_others(&self) -> bool {
        let sharing = self.shared.sharing.get();
        sharing.is_some_and(|sharing| sharing.has_others.load(Ordering::Relaxed))
    }

    /// Tells the other hosts that a call has ended which this host does not count.
    pub(super) fn tell_end(&self, call: CallKey) {
        if let Some(sharing) = self.shared.sharing.get()
            && sharing.has_others.load(Ordering::Relaxed)
        {
            sharing.ended.note(call.number());
        }
    }
}

#[cfg(test)]
mod tests;
