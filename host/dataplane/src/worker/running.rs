//! The life of a worker: its start, its chores, and its end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use portcullis_policy::scheduling;
use portcullis_transaction::Outbox;
use portcullis_udp::{Errors, Receiver};
use tokio::net::UnixDatagram;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tracing::{debug, warn};

use super::timer::Timer;
use super::udp::{SLICE, flush_all};
use super::udp_sockets::{BATCH, UdpSockets};
use super::{Worker, handshake_slots, passed, reading, tcp, transactions, udp};
use crate::link::Link;
use crate::orders::Order;
use crate::pipeline::Pipeline;
use crate::shared::Shared;
use crate::transport::WorkerSockets;

/// Stack for host code, in addition to the stack that a policy may use.
const STACK: usize = 2 << 20;

/// Interval of the tasks that no message triggers.
const CHORES: Duration = Duration::from_secs(1);

/// Time limit for the decisions on what waits while another process is about to take the sockets over.
const SETTLE: Duration = Duration::from_secs(1);

/// Time limit at shutdown for peers to receive their last messages.
const DRAIN: Duration = Duration::from_secs(2);

/// Starts the worker with this number on its own thread, and returns when its sockets are served. When `stop` becomes true or its sender is
/// dropped, the worker sends what it can and ends.
///
/// # Errors
/// When the thread or its runtime cannot be created, or a socket cannot be polled.
///
/// # Panics
/// The thread panics when `shared` has no counters for that worker.
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
            if let Err(error) = scheduling::request(scheduling::WORKER) {
                debug!(event = "worker_slow", %error, "no short time slice for a worker: requests may wait for other threads on a busy processor");
            }
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

/// A worker with its tasks.
struct Running {
    worker: Rc<RefCell<Worker>>,
    /// What goes on until the end.
    tasks: JoinSet<()>,
    /// What receives datagrams and accepts connections.
    receiving: JoinSet<()>,
    listeners: Vec<tcp::Listener>,
    orders: Option<mpsc::UnboundedReceiver<Order>>,
    all_sent: mpsc::Receiver<()>,
}

impl Running {
    /// Takes ownership of the sockets and starts a task for each.
    fn start(number: usize, shared: Arc<Shared>, sockets: WorkerSockets) -> io::Result<Self> {
        let orders = shared.orders.of(number);
        let receives = shared.orders.receives_at_start;
        let pipeline = Pipeline::new(shared, number);
        let reports_errors = pipeline.is_stateful();
        let udp = UdpSockets::new(sockets.udp, reports_errors)?;
        let (writers, all_sent) = mpsc::channel(1);
        let listeners = sockets.streams.into_iter();
        let listeners = listeners
            .map(tcp::Listener::new)
            .collect::<io::Result<_>>()?;
        let bounds = &pipeline.shared().config.streams;
        let slots = Rc::new(handshake_slots::Slots::new(
            bounds,
            std::time::Instant::now(),
        ));
        let worker = Rc::new_cyclic(|this| {
            RefCell::new(Worker {
                pipeline,
                errors: reports_errors.then(Errors::new),
                receiver: Receiver::new(BATCH),
                udp,
                waiting: VecDeque::new(),
                slow: Rc::new(Semaphore::new(1)),
                slots,
                read_buffer: vec![0; reading::CHUNK].into(),
                stream_in: Vec::new(),
                stream_out: Vec::new(),
                sends: Outbox::default(),
                timer: Timer::default(),
                this: Weak::clone(this),
                writers: Some(writers),
                is_ending: false,
            })
        });
        let mut tasks = JoinSet::new();
        worker.borrow().connections().decides();
        tasks.spawn_local(chores(Rc::clone(&worker)));
        if worker.borrow().pipeline.is_stateful() {
            tasks.spawn_local(transactions::run_timers(Rc::clone(&worker)));
            tasks.spawn_local(transactions::take_over(Rc::clone(&worker)));
        }
        let mut running = Self {
            worker,
            tasks,
            receiving: JoinSet::new(),
            listeners,
            orders,
            all_sent,
        };
        if receives {
            running.receive();
        }
        Ok(running)
    }

    /// Starts to receive datagrams and to accept connections, if it does not yet.
    fn receive(&mut self) {
        if !self.receiving.is_empty() {
            return;
        }
        let count = self.worker.borrow().udp.count();
        for socket in 0..count {
            let serve = udp::serve(Rc::clone(&self.worker), socket);
            self.receiving.spawn_local(serve);
        }
        for listener in &self.listeners {
            let accept = tcp::accept(Rc::clone(&self.worker), listener.clone());
            self.receiving.spawn_local(accept);
        }
    }

    /// Runs until `stop` becomes true or its sender is dropped.
    async fn until(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            _stopped_or_gone = stop.wait_for(|stop| *stop) => {}
            never = self.obey() => match never {},
        }
        // From here on, nothing new is received. Everything received is decided, and the results are sent.
        self.receiving.shutdown().await;
        self.tasks.shutdown().await;
        let deadline = Instant::now() + DRAIN;
        self.worker.borrow_mut().is_ending = true;
        self.worker.borrow_mut().decide_waiting(DRAIN);
        let shared = Arc::clone(self.worker.borrow().pipeline.shared());
        shared.handovers.ends();
        let _all_given = timeout_at(deadline, shared.handovers.ended()).await;
        self.worker.borrow_mut().take_all();
        self.worker.borrow_mut().decide_waiting(DRAIN);
        let slow = Rc::clone(&self.worker.borrow().slow);
        let connections = Arc::clone(self.worker.borrow().connections());
        // The semaphore is fair: this permit follows those of all waiting requests.
        let _all_decided = timeout_at(deadline, slow.acquire()).await;
        connections.decided();
        if timeout_at(deadline, connections.closed()).await.is_err() {
            connections.close();
        }
        self.worker.borrow_mut().writers = None;
        let drained = timeout(DRAIN, async {
            flush_all(&self.worker).await;
            let _all_writers_gone = self.all_sent.recv().await;
            flush_all(&self.worker).await;
        });
        if drained.await.is_err() {
            warn!(
                event = "peers_not_drained",
                "peers did not take their last messages in time"
            );
        }
    }
}

impl Running {
    /// Does what the control side asks for. Never completes.
    async fn obey(&mut self) -> Infallible {
        let mut orders = self.orders.take();
        while let Some(orders) = &mut orders
            && let Some(order) = orders.recv().await
        {
            self.carry_out(order).await;
        }
        std::future::pending().await
    }

    /// Nobody may wait for the answer any more.
    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Send { bytes, to } => {
                self.worker.borrow_mut().send_own(&bytes, to);
                flush_all(&self.worker).await;
            }
            Order::Ping(requests) => {
                for some in requests.chunks(BATCH) {
                    for (bytes, to) in some {
                        self.worker.borrow_mut().send_ping(bytes, *to);
                    }
                    flush_all(&self.worker).await;
                }
            }
            Order::Settle(answer) => {
                self.settle().await;
                let _gone = answer.send(());
            }
            Order::Lend(answer) => drop(answer.send(self.lend())),
            Order::Names { from, answer } => {
                let names = self.worker.borrow_mut().pipeline.names(from);
                let _gone = answer.send(names);
            }
            Order::Pause(answer) => {
                self.receiving.shutdown().await;
                let _gone = answer.send(());
            }
            Order::NamesSince(answer) => {
                // Connections go on, and may fill the queues for as long as they like. Meanwhile nobody reads the sockets.
                let _all_decided = timeout(SETTLE, self.settle()).await;
                let names = self.worker.borrow_mut().pipeline.names_since();
                let _gone = answer.send(names);
            }
            Order::Receive(answer) => {
                let _not_needed = self.worker.borrow_mut().pipeline.names_since();
                self.receive();
                let _gone = answer.send(());
            }
            Order::Leave(link, answer) => drop(answer.send(self.leave(link))),
            Order::Succeed(predecessors, answer) => {
                self.worker.borrow_mut().pipeline.succeed(predecessors);
                let _gone = answer.send(());
            }
            Order::Forget(answer) => {
                self.worker.borrow_mut().pipeline.succeed(Vec::new());
                let _gone = answer.send(());
            }
            Order::List { from, most, answer } => {
                let page = self.worker.borrow_mut().pipeline.listed(from, most);
                let _gone = answer.send(page);
            }
            // A caller that has given up has the answer that this worker cancels nothing.
            Order::Cancel { answer, .. } if answer.is_closed() => {}
            Order::Cancel {
                from,
                call,
                most,
                answer,
            } => {
                let page = self.worker.borrow_mut().cancel(from, &call, most);
                let _gone = answer.send(page);
                flush_all(&self.worker).await;
            }
        }
    }

    /// Decides on everything that waits for a decision, and sends the results.
    async fn settle(&self) {
        while self.worker.borrow_mut().take_turn() > 0 {
            yield_now().await;
        }
        while !self.worker.borrow().waiting.is_empty() {
            self.worker.borrow_mut().decide_waiting(SLICE);
            yield_now().await;
        }
        let slow = Rc::clone(&self.worker.borrow().slow);
        // The semaphore is fair: this permit follows those of all requests of connections that wait.
        drop(slow.acquire().await);
        flush_all(&self.worker).await;
    }

    fn lend(&self) -> io::Result<WorkerSockets> {
        let mut lent = WorkerSockets {
            udp: self.worker.borrow().udp.lend()?,
            ..WorkerSockets::default()
        };
        for listener in &self.listeners {
            lent.streams.push(listener.lend()?);
        }
        Ok(lent)
    }

    fn leave(&mut self, link: Link) -> io::Result<()> {
        let link = UnixDatagram::from_std(link.into_socket())?;
        let mut worker = self.worker.borrow_mut();
        worker.udp.leave()?;
        self.listeners.clear();
        worker.pipeline.leave();
        let passed = passed::receive(Rc::clone(&self.worker), link);
        self.tasks.spawn_local(passed);
        Ok(())
    }
}

/// Periodic work that no message triggers: old policies and tables must be released even without traffic.
async fn chores(worker: Rc<RefCell<Worker>>) {
    let mut tick = interval(CHORES);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let worker = &mut *worker.borrow_mut();
        worker.counters().chores.inc();
        let seconds = portcullis_text::unix_seconds();
        worker.pipeline.shared().proxy.set_time(seconds);
        worker.pipeline.refresh_all();
        worker.udp.count_overflows(&worker.pipeline);
    }
}
