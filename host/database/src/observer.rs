//! The connection by which changes of an SQLite file are noticed.
//!
//! `PRAGMA data_version` of a connection changes with what other connections write, and not with what it writes itself. [`TableWatch`] asks on
//! the same connection over which the audit is written: no table is read again because of the audit, and no change of another connection is
//! missed.
//!
//! [`TableWatch`]: crate::TableWatch

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use portcullis_file_id::FileId;
use tokio::sync::{Mutex as Turns, OwnedMutexGuard, OwnedSemaphorePermit};

use crate::DatabaseUrl;
use crate::wire::{Origin, Wire};

/// The observers of this process. Connections of one file share one, whatever opened them.
static ALL: Mutex<Vec<(PathBuf, Weak<Observer>)>> = Mutex::new(Vec::new());

/// What the connections to an SQLite file share.
#[derive(Default)]
pub(crate) struct Observer {
    idle: Arc<Turns<Option<Idle>>>,
    /// Number of connections so far.
    count: AtomicU64,
}

/// The connection while nobody uses it. It may be used on every runtime: the driver runs it on a thread.
pub(crate) struct Idle {
    pub(crate) wire: Wire,
    pub(crate) origin: Origin,
    pub(crate) permit: OwnedSemaphorePermit,
    pub(crate) number: u64,
}

impl Observer {
    /// The observer of this file; that of a server is not used.
    pub(crate) fn of(url: &DatabaseUrl) -> Arc<Self> {
        let Some(path) = url.file() else {
            return Arc::default();
        };
        let mut all = ALL.lock();
        all.retain(|(_, observer)| observer.strong_count() > 0);
        let known = all.iter().find(|(known, _)| known == path);
        if let Some(observer) = known.and_then(|(_, observer)| observer.upgrade()) {
            return observer;
        }
        let observer = Arc::default();
        all.push((path.to_owned(), Arc::downgrade(&observer)));
        observer
    }

    /// Waits until nobody uses the connection.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<Option<Idle>> {
        Arc::clone(&self.idle).lock_owned().await
    }

    /// The number of a further connection.
    pub(crate) fn number(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Idle {
    /// The connection and its number, if it has the file open that is at this path.
    pub(crate) fn opened(self, path: &Path) -> Option<(Wire, Origin, OwnedSemaphorePermit, u64)> {
        let is_same = is_at(self.origin.file, path);
        is_same.then_some((self.wire, self.origin, self.permit, self.number))
    }
}

/// Whether this file is at the path.
pub(crate) fn is_at(file: Option<FileId>, path: &Path) -> bool {
    file.is_some_and(|file| file.is_at(path))
}
