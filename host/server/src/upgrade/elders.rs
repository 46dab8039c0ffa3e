//! The processes that had the sockets before this one: how its workers reach them, and those of its successor.

use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use portcullis_dataplane::link::{Link, Names, Predecessor};
use portcullis_udp::Channel;

/// Such processes, the last of them first. Clones are the same list.
#[derive(Clone, Default)]
pub(crate) struct Elders(Arc<Mutex<Vec<Elder>>>);

/// A process that had the sockets before.
pub(super) struct Elder {
    /// The end of the processes after that one. Each side notices by it that the other one has ended.
    pub(super) channel: Channel,
    /// By worker.
    pub(super) links: Vec<Option<Link>>,
    /// Its transactions when it gave its sockets away, by worker.
    pub(super) names: Vec<Arc<Names>>,
}

impl Elders {
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Elder>> {
        self.0.lock()
    }
}

impl Elder {
    /// A process with this many workers, and nothing else known.
    pub(super) fn new(channel: Channel, workers: usize) -> Self {
        Self {
            channel,
            links: (0..workers).map(|_| None).collect(),
            names: (0..workers).map(|_| Arc::default()).collect(),
        }
    }

    /// Adds transactions of a worker, while nobody else has the names.
    pub(super) fn add(&mut self, worker: usize, names: Vec<u64>) {
        let own = self.names.get_mut(worker).and_then(Arc::get_mut);
        debug_assert!(own.is_some(), "names come before the workers have them");
        if let Some(own) = own {
            own.extend(names);
        }
    }

    /// What a worker of this process needs to pass messages on. `None` without a link.
    pub(super) fn predecessor(&self, worker: usize) -> io::Result<Option<Predecessor>> {
        let link = self.links.get(worker).and_then(Option::as_ref);
        let (Some(link), Some(names)) = (link, self.names.get(worker)) else {
            return Ok(None);
        };
        Ok(Some(Predecessor::new(link.duplicate()?, Arc::clone(names))))
    }
}
