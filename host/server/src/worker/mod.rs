//! One worker: a thread with a runtime of its own, its own sockets, and a pipeline. Workers share nothing but [`Shared`].

use std::cell::RefCell;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use portcullis_sip::{Destination, Transport};
use portcullis_udp::Receiver;
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};

use crate::metrics::Lost;
use crate::pipeline::Pipeline;
use crate::shared::Shared;
use crate::transport::{self, Udp, WorkerSockets};

/// Room for a policy's stack, for what the host does around it, and to spare.
const STACK: usize = 4 << 20;

/// What the tasks of one worker share. They run on one thread and never hold it across an await.
pub(crate) struct Worker {
    pub(crate) pipeline: Pipeline,
    pub(crate) receiver: Receiver,
    pub(crate) udp: Vec<Udp>,
    /// Buffers for messages that came over a stream or go out over one.
    pub(crate) stream_in: Vec<u8>,
    pub(crate) stream_out: Vec<u8>,
    this: Weak<RefCell<Self>>,
}

/// Starts the worker of this number on a thread of its own. It ends when `stop` becomes true or its sender is gone.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn spawn(
    number: usize,
    shared: Arc<Shared>,
    sockets: WorkerSockets,
    stop: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .stack_size(STACK)
        .spawn(move || {
            let tasks = LocalSet::new();
            tasks.block_on(&runtime, run(number, shared, sockets, stop));
        })
}

async fn run(
    number: usize,
    shared: Arc<Shared>,
    sockets: WorkerSockets,
    mut stop: watch::Receiver<bool>,
) {
    let mut udp = Vec::new();
    for (socket, local) in sockets.udp {
        match Udp::new(socket, local) {
            Ok(one) => udp.push(one),
            Err(error) => tracing::error!(%error, %local, "A UDP socket cannot be served."),
        }
    }
    let count = udp.len();
    let worker = Rc::new_cyclic(|this| {
        RefCell::new(Worker {
            pipeline: Pipeline::new(shared, number),
            receiver: Receiver::new(transport::BATCH),
            udp,
            stream_in: Vec::new(),
            stream_out: Vec::new(),
            this: Weak::clone(this),
        })
    });
    for socket in 0..count {
        spawn_local(transport::serve(Rc::clone(&worker), socket));
    }
    for (listener, local) in sockets.tcp {
        spawn_local(transport::accept(Rc::clone(&worker), listener, local));
    }
    let _stopped_or_gone = stop.wait_for(|stop| *stop).await;
    transport::flush_all(&worker).await;
}

impl Worker {
    /// Sends what the pipeline wrote into the buffer of the UDP socket `number`, from wherever it is to go.
    pub(crate) fn dispatch(&mut self, number: usize, destination: &Destination) {
        if destination.transport == Transport::Tcp {
            let bytes = Bytes::copy_from_slice(self.udp[number].sender.draft());
            if let Some(this) = self.this.upgrade() {
                // The worker is borrowed here: the connection is looked for in a task of its own.
                let destination = *destination;
                spawn_local(async move { transport::send(&this, &destination, bytes) });
            }
            return;
        }
        let Some(from) = self.udp_towards(destination) else {
            self.pipeline.counters().lost.inc(Lost::SendError);
            return;
        };
        let length = self.udp[number].sender.draft().len() as u64;
        self.pipeline.counters().udp.sent_bytes.add(length);
        if from == number {
            self.udp[number].sender.commit(destination.addr);
            return;
        }
        let [there, here] = self
            .udp
            .get_disjoint_mut([from, number])
            .expect("two different sockets of this worker");
        there.sender.push(here.sender.draft(), destination.addr);
    }

    /// The socket to send from: the one that the destination names, else one of the same address family.
    pub(crate) fn udp_towards(&self, destination: &Destination) -> Option<usize> {
        let named = destination
            .from
            .and_then(|from| self.udp.iter().position(|udp| udp.local() == from));
        named.or_else(|| {
            let is_v4 = destination.addr.is_ipv4();
            self.udp
                .iter()
                .position(|udp| udp.local().is_ipv4() == is_v4)
        })
    }
}
