//! One worker: a thread with a runtime of its own, its own sockets, and a pipeline. Workers share nothing but [`Shared`](crate::shared::Shared).

mod running;
mod stream;
mod stream_peer;
mod tcp;
mod udp;
mod udp_socket;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use portcullis_metrics::WorkerCounters;
use portcullis_request::Request;
use portcullis_udp::Receiver;
use tokio::sync::{Semaphore, mpsc};

use crate::pipeline::Pipeline;

pub use running::spawn;

use udp_socket::Udp;

/// What the tasks of one worker share. They run on one thread and never hold it across an await.
pub(crate) struct Worker {
    pub(crate) pipeline: Pipeline,
    pub(crate) receiver: Receiver,
    pub(crate) udp: Vec<Udp>,
    /// Requests that let others go first, with the number of the UDP socket that they came from.
    pub(crate) waiting: VecDeque<(usize, Box<Request>)>,
    /// Whose turn it is of the connections with a request that lets others go first.
    pub(crate) slow: Rc<Semaphore>,
    /// Buffers for messages that came over a stream or go out over one.
    pub(crate) stream_in: Vec<u8>,
    pub(crate) stream_out: Vec<u8>,
    this: Weak<RefCell<Self>>,
    /// Each writer of a connection has a clone: when all are gone, everything is sent. None when the worker ends.
    writers: Option<mpsc::Sender<()>>,
    /// The worker ends: connections are read no further.
    pub(crate) is_ending: bool,
}

impl Worker {
    /// What this worker counts.
    pub(crate) fn counters(&self) -> &WorkerCounters {
        self.pipeline.counters()
    }

    /// The handle of this worker for a new task.
    pub(crate) fn this(&self) -> Option<Rc<RefCell<Self>>> {
        self.this.upgrade()
    }

    /// What a writer holds for as long as it has something to send.
    pub(crate) fn writers(&self) -> Option<mpsc::Sender<()>> {
        self.writers.clone()
    }
}
