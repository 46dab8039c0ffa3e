//! One worker: a thread with a runtime of its own, its own sockets, and a pipeline. Workers share nothing but [`Shared`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use portcullis_udp::Receiver;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::warn;

use crate::metrics::WorkerCounters;
use crate::pipeline::{Pipeline, PolicyRequest};
use crate::shared::Shared;
use crate::transport::{self, Udp, WorkerSockets};

/// Room for what the host does, beside the stack that a policy may use.
const STACK: usize = 2 << 20;

/// How often a worker looks after what no message makes it look after.
const CHORES: Duration = Duration::from_secs(1);

/// How long the end waits for peers to take what is on its way to them.
const DRAIN: Duration = Duration::from_secs(2);

/// What the tasks of one worker share. They run on one thread and never hold it across an await.
pub(crate) struct Worker {
    pub(crate) pipeline: Pipeline,
    pub(crate) receiver: Receiver,
    pub(crate) udp: Vec<Udp>,
    /// Requests that let others go first, with the number of the UDP socket that they came from.
    pub(crate) waiting: VecDeque<(usize, Box<PolicyRequest>)>,
    /// Whose turn it is of the connections with a request that lets others go first.
    pub(crate) slow: Rc<Semaphore>,
    /// Buffers for messages that came over a stream or go out over one.
    pub(crate) stream_in: Vec<u8>,
    pub(crate) stream_out: Vec<u8>,
    this: Weak<RefCell<Self>>,
    /// Each writer of a connection has a clone: when all are gone, everything is sent. None when the worker ends.
    writers: Option<mpsc::Sender<()>>,
}

/// Starts the worker of this number on a thread of its own, and returns when its sockets are served. It ends, with everything
/// sent that can be sent, when `stop` becomes true or its sender is gone.
///
/// # Errors
/// When the thread or its runtime can't be made, or a socket can't be waited for.
///
/// # Panics
/// The thread does when `shared` has no counters for that worker.
pub fn spawn(
    number: usize,
    shared: Arc<Shared>,
    sockets: WorkerSockets,
    stop: watch::Receiver<bool>,
) -> io::Result<JoinHandle<()>> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let policy_stack = shared.config.policy.seat.limits.stack_bytes;
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .stack_size(STACK + policy_stack)
        .spawn(move || {
            let mut builder = Builder::new_current_thread();
            let paused = Arc::clone(&shared);
            builder.on_thread_park(move || paused.counters[number].pauses.inc());
            let runtime = match builder.enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(error))),
            };
            runtime.block_on(async {
                match Running::start(number, shared, sockets) {
                    Ok(running) => {
                        let _listens = tell.send(Ok(()));
                        running.until(stop).await;
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            });
        })?;
    match told.recv() {
        Ok(started) => started.map(|()| thread),
        Err(_) => Err(io::Error::other("the thread died")),
    }
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

/// A worker with its tasks.
struct Running {
    worker: Rc<RefCell<Worker>>,
    tasks: JoinSet<()>,
    all_sent: mpsc::Receiver<()>,
}

impl Running {
    /// Takes the sockets over and starts a task for each.
    fn start(number: usize, shared: Arc<Shared>, sockets: WorkerSockets) -> io::Result<Self> {
        let udp = sockets.udp.into_iter();
        let udp: Vec<Udp> = udp
            .map(|(socket, local)| Udp::new(socket, local))
            .collect::<io::Result<_>>()?;
        let (writers, all_sent) = mpsc::channel(1);
        let udp_count = udp.len();
        let worker = Rc::new_cyclic(|this| {
            RefCell::new(Worker {
                pipeline: Pipeline::new(shared, number),
                receiver: Receiver::new(transport::BATCH),
                udp,
                waiting: VecDeque::new(),
                slow: Rc::new(Semaphore::new(1)),
                stream_in: Vec::new(),
                stream_out: Vec::new(),
                this: Weak::clone(this),
                writers: Some(writers),
            })
        });
        let mut tasks = JoinSet::new();
        for socket in 0..udp_count {
            tasks.spawn_local(transport::serve(Rc::clone(&worker), socket));
        }
        for (listener, local) in sockets.tcp {
            let listener = TcpListener::from_std(listener)?;
            tasks.spawn_local(transport::accept(Rc::clone(&worker), listener, local));
        }
        tasks.spawn_local(chores(Rc::clone(&worker)));
        Ok(Self {
            worker,
            tasks,
            all_sent,
        })
    }

    /// Runs until `stop` becomes true or its sender is gone.
    async fn until(mut self, mut stop: watch::Receiver<bool>) {
        let _stopped_or_gone = stop.wait_for(|stop| *stop).await;
        // Nothing new comes in from here on; what is decided goes out.
        self.tasks.shutdown().await;
        self.worker.borrow_mut().decide_waiting(DRAIN);
        self.worker.borrow().connections().close();
        self.worker.borrow_mut().writers = None;
        let drained = timeout(DRAIN, async {
            transport::flush_all(&self.worker).await;
            let _all_writers_gone = self.all_sent.recv().await;
            transport::flush_all(&self.worker).await;
        });
        if drained.await.is_err() {
            warn!("Some peers took too long for the last messages to them.");
        }
    }
}

/// What has to be done without any message: old policies and tables must not stay only because nobody calls.
async fn chores(worker: Rc<RefCell<Worker>>) {
    let mut tick = interval(CHORES);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let mut worker = worker.borrow_mut();
        worker.pipeline.refresh_all();
        worker.count_overflows();
    }
}
