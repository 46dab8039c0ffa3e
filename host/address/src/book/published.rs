//! What is published: the current snapshot, and the state of the book.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use portcullis_sync::Retired;

use super::snapshot::Snapshot;
use super::status::Status;

/// Shared by the loaders of all parts.
#[derive(Default)]
pub(super) struct Published {
    pub(super) current: Arc<ArcSwap<Snapshot>>,
    /// Snapshots that a worker may still have. They are freed here and not by the worker that drops them last: freeing a
    /// million rows takes a while.
    retired: Retired<Snapshot>,
    /// Held while publishing.
    publishing: Mutex<()>,
    pub(super) status: Mutex<Status>,
}

impl Published {
    /// Publishes a snapshot derived from the current one. Parts are loaded concurrently, and none may undo the other's change.
    pub(super) fn replace(&self, next: impl FnOnce(&Snapshot) -> Snapshot) -> Arc<Snapshot> {
        let one_at_a_time = self.publishing.lock();
        let snapshot = Arc::new(next(&self.current.load()));
        let old = self.current.swap(Arc::clone(&snapshot));
        drop(one_at_a_time);
        self.retired.add(old);
        self.collect();
        snapshot
    }

    /// Frees the old snapshots that no worker uses any more.
    pub(super) fn collect(&self) {
        let unused = self.retired.take_unused();
        if !unused.is_empty() {
            // Freeing takes time, so it is done on another thread.
            drop(tokio::task::spawn_blocking(move || drop(unused)));
        }
    }
}
