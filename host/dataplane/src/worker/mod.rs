//! One worker: a thread with its own runtime, its own sockets, and a pipeline. Workers share only [`Shared`](crate::shared::Shared).

mod both_halves;
mod forwarded;
mod handshake_slots;
mod inbound;
mod passed;
mod proxy_header;
mod reading;
mod running;
mod socket_options;
mod stream;
mod stream_peer;
mod tcp;
mod timer;
mod tls;
mod tls_stream;
mod transactions;
mod udp;
mod udp_sockets;
mod websocket;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use portcullis_metrics::WorkerCounters;
use portcullis_request::Request;
use portcullis_transaction::Outbox;
use portcullis_udp::{Errors, Receiver};
use tokio::sync::{Semaphore, mpsc};

use crate::pipeline::Pipeline;

pub use running::spawn;

use timer::Timer;
use udp_sockets::UdpSockets;

/// The state shared by the tasks of one worker. They run on one thread and never borrow it across an await.
pub(crate) struct Worker {
    pub(crate) pipeline: Pipeline,
    pub(crate) receiver: Receiver,
    /// Reports of ICMP errors; `None` while they are handled.
    pub(crate) errors: Option<Errors>,
    pub(crate) udp: UdpSockets,
    /// Deferred requests, with the number of the UDP socket that received each; `None` for those that another worker received.
    pub(crate) waiting: VecDeque<(Option<usize>, Box<Request>)>,
    /// Turns of the connections with a deferred request.
    pub(crate) slow: Rc<Semaphore>,
    /// TLS handshakes in progress.
    slots: Rc<handshake_slots::Slots>,
    /// Bytes that were just read from a stream.
    read_buffer: Box<[u8]>,
    /// Buffers for messages received from or sent to a stream.
    pub(crate) stream_in: Vec<u8>,
    pub(crate) stream_out: Vec<u8>,
    /// Messages of transactions while they are sent.
    pub(crate) sends: Outbox,
    pub(crate) timer: Timer,
    this: Weak<RefCell<Self>>,
    /// Each writer of a connection holds a clone: when all are dropped, everything is sent. `None` when the worker is ending.
    writers: Option<mpsc::Sender<()>>,
    /// The worker is ending: connections are not read any more.
    pub(crate) is_ending: bool,
}

impl Worker {
    /// The counters of this worker.
    pub(crate) fn counters(&self) -> &WorkerCounters {
        self.pipeline.counters()
    }

    /// A handle of this worker for a new task.
    pub(crate) fn this(&self) -> Option<Rc<RefCell<Self>>> {
        self.this.upgrade()
    }

    /// A handle that a writer holds while it has something to send.
    pub(crate) fn writers(&self) -> Option<mpsc::Sender<()>> {
        self.writers.clone()
    }
}
