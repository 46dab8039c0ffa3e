//! What the control side asks of running workers.

use std::io;

use parking_lot::Mutex;
use portcullis_sip::Destination;
use portcullis_transaction::NameSlot;
use tokio::sync::{mpsc, oneshot};

use crate::active::{CallName, CancelledPage, Page};
use crate::link::{Link, Predecessor};
use crate::transport::WorkerSockets;

/// The orders to all workers.
#[derive(Debug)]
pub struct Orders {
    queues: Box<[Queue]>,
    /// Whether a worker receives as soon as it has started. Otherwise it waits for [`Orders::receive`].
    pub(crate) receives_at_start: bool,
    /// Held by the one inspection that workers answer now.
    pub(crate) inspections: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Queue {
    sender: mpsc::UnboundedSender<Order>,
    /// Until the worker starts.
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Order>>>,
}

/// Some of the transactions of a worker.
#[derive(Debug, Default)]
pub struct NamesPage {
    /// Their numbers.
    pub names: Vec<u64>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<NameSlot>,
}

/// What a worker is to do. It answers when that is done.
#[derive(Debug)]
pub(crate) enum Order {
    /// To send a request of the host itself. Nobody waits for the end of this.
    Send { bytes: Box<[u8]>, to: Destination },
    /// To send these pings along flows of clients, unless too much has been sent to a client. Nobody waits for the end of this.
    Ping(Vec<(Box<[u8]>, Destination)>),
    /// To decide on everything that waits for a decision.
    Settle(Answer<()>),
    /// To duplicate its sockets.
    Lend(Answer<io::Result<WorkerSockets>>),
    /// To return a page of the names of its transactions. With the first page it begins to note those that begin.
    Names {
        /// Where the page begins; `None` for the first one.
        from: Option<NameSlot>,
        answer: Answer<NamesPage>,
    },
    /// To receive no datagram and to accept no connection any more.
    Pause(Answer<()>),
    /// To decide on what waits, for a limited time, and to return the names of transactions since [`Order::Names`].
    NamesSince(Answer<Vec<u64>>),
    /// To receive and to accept.
    Receive(Answer<()>),
    /// To serve only what it has: its transactions, with what comes over the link, and its connections.
    Leave(Link, Answer<io::Result<()>>),
    /// To pass on what belongs to transactions of other processes.
    Succeed(Vec<Predecessor>, Answer<()>),
    /// These processes have ended.
    Forget(Answer<()>),
    /// To return a page of its active transactions.
    List {
        /// The slot to begin with.
        from: u32,
        /// At most this many.
        most: usize,
        answer: Answer<Page>,
    },
    /// To cancel the INVITE transactions of a call in a page of slots.
    Cancel {
        /// The slot to begin with.
        from: u32,
        call: CallName,
        /// At most this many.
        most: usize,
        answer: Answer<CancelledPage>,
    },
}

pub(crate) type Answer<R> = oneshot::Sender<R>;

impl Orders {
    /// Orders to this many workers.
    pub fn new(workers: usize, receives_at_start: bool) -> Self {
        let queue = |_| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let receiver = Mutex::new(Some(receiver));
            Queue { sender, receiver }
        };
        Self {
            queues: (0..workers).map(queue).collect(),
            receives_at_start,
            inspections: tokio::sync::Mutex::new(()),
        }
    }

    /// Has every worker decide on everything that waits for a decision: deferred requests, and what other workers have handed over.
    pub async fn settle(&self) {
        for worker in 0..self.queues.len() {
            // A worker that has ended has nothing left.
            let _settled = self.ask(worker, Order::Settle).await;
        }
    }

    /// Duplicates of the sockets of a worker.
    ///
    /// # Errors
    /// When no descriptor is left, or the worker has ended.
    pub async fn lend(&self, worker: usize) -> io::Result<WorkerSockets> {
        self.ask(worker, Order::Lend).await?
    }

    /// A page of the numbers of all transactions of a worker: the worker handles messages between two pages. Those that begin after the first page
    /// was asked for are in the result of [`Orders::names_since`].
    ///
    /// # Errors
    /// When the worker has ended.
    pub async fn names(&self, worker: usize, from: Option<NameSlot>) -> io::Result<NamesPage> {
        self.ask(worker, |answer| Order::Names { from, answer })
            .await
    }

    /// Has all workers receive no datagram and accept no connection any more.
    ///
    /// # Errors
    /// When a worker has ended.
    pub async fn pause(&self) -> io::Result<()> {
        self.ask_all(Order::Pause).await.map(drop)
    }

    /// Has all workers decide on what waits, for a second at most. Returns, by worker, the numbers of the transactions that have begun since
    /// [`Orders::names`].
    ///
    /// To be called when [`Orders::pause`] has completed: until then, a worker may hand a datagram over to one that has answered already.
    ///
    /// # Errors
    /// When a worker has ended.
    pub async fn names_since(&self) -> io::Result<Vec<Vec<u64>>> {
        self.ask_all(Order::NamesSince).await
    }

    /// Has all workers receive and accept, after [`Orders::pause`] or their start. None waits for another one that is busy.
    ///
    /// # Errors
    /// When a worker has ended. The others receive nevertheless.
    pub async fn receive(&self) -> io::Result<()> {
        self.ask_all(Order::Receive).await.map(drop)
    }

    /// Has a paused worker serve only what it has: its connections, and its transactions, with the messages that come over the link. Another
    /// process receives from its sockets.
    ///
    /// # Errors
    /// When no descriptor is left, or the worker has ended.
    pub async fn leave(&self, worker: usize, link: Link) -> io::Result<()> {
        self.ask(worker, |answer| Order::Leave(link, answer))
            .await?
    }

    /// Has a worker pass on what belongs to transactions of the processes that had its sockets before, the last of them first.
    ///
    /// # Errors
    /// When the worker has ended.
    pub async fn succeed(&self, worker: usize, predecessors: Vec<Predecessor>) -> io::Result<()> {
        self.ask(worker, |answer| Order::Succeed(predecessors, answer))
            .await
    }

    /// Has every worker pass nothing on any more: these processes have ended.
    pub async fn forget(&self) {
        for worker in 0..self.queues.len() {
            let _forgotten = self.ask(worker, Order::Forget).await;
        }
    }

    /// A page of the active transactions of a worker, from a slot on: at most this many.
    ///
    /// # Errors
    /// When the worker has ended.
    pub(crate) async fn list(&self, worker: usize, from: u32, most: usize) -> io::Result<Page> {
        self.ask(worker, |answer| Order::List { from, most, answer })
            .await
    }

    /// Has a worker cancel at most this many transactions of a call in a page of slots.
    ///
    /// # Errors
    /// When the worker has ended.
    pub(crate) async fn cancel(
        &self,
        worker: usize,
        from: u32,
        call: CallName,
        most: usize,
    ) -> io::Result<CancelledPage> {
        self.ask(worker, |answer| Order::Cancel {
            from,
            call,
            most,
            answer,
        })
        .await
    }

    /// Has a worker send a request of the host itself. What becomes of it is noted in [`Pings`](crate::pings::Pings).
    ///
    /// # Errors
    /// When the worker has ended.
    pub fn send(&self, worker: usize, bytes: Box<[u8]>, to: Destination) -> io::Result<()> {
        let queue = self.queues.get(worker).ok_or_else(|| gone(worker))?;
        let sent = queue.sender.send(Order::Send { bytes, to });
        sent.map_err(|_| gone(worker))
    }

    /// Has a worker send pings along flows of clients. What becomes of them is noted in [`FlowPings`](crate::flow_pings::FlowPings).
    ///
    /// # Errors
    /// When the worker has ended.
    pub fn ping(&self, worker: usize, requests: Vec<(Box<[u8]>, Destination)>) -> io::Result<()> {
        let queue = self.queues.get(worker).ok_or_else(|| gone(worker))?;
        let sent = queue.sender.send(Order::Ping(requests));
        sent.map_err(|_| gone(worker))
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.queues.len()
    }

    /// The orders to a worker that starts. Its queue has one reader.
    pub(crate) fn of(&self, worker: usize) -> Option<mpsc::UnboundedReceiver<Order>> {
        self.queues.get(worker)?.receiver.lock().take()
    }

    async fn ask<R>(&self, worker: usize, order: impl FnOnce(Answer<R>) -> Order) -> io::Result<R> {
        self.order(worker, order)?.await.map_err(|_| gone(worker))
    }

    /// All workers have the order before the first answer is waited for.
    async fn ask_all<R>(&self, order: impl Fn(Answer<R>) -> Order) -> io::Result<Vec<R>> {
        let workers = 0..self.queues.len();
        let sent: Vec<_> = workers.map(|worker| self.order(worker, &order)).collect();
        let mut answers = Vec::new();
        for (worker, answered) in sent.into_iter().enumerate() {
            answers.push(answered?.await.map_err(|_| gone(worker))?);
        }
        Ok(answers)
    }

    fn order<R>(
        &self,
        worker: usize,
        order: impl FnOnce(Answer<R>) -> Order,
    ) -> io::Result<oneshot::Receiver<R>> {
        let (answer, answered) = oneshot::channel();
        let queue = self.queues.get(worker).ok_or_else(|| gone(worker))?;
        let sent = queue.sender.send(order(answer));
        sent.map(|()| answered).map_err(|_| gone(worker))
    }
}

fn gone(worker: usize) -> io::Error {
    io::Error::other(format!("worker {worker} has ended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_receives_again_while_another_one_is_busy() {
        let orders = Orders::new(3, true);
        let mut busy = orders.of(0).unwrap();
        drop(orders.of(1));
        let mut idle = orders.of(2).unwrap();
        let control = async {
            let received = orders.receive().await;
            assert!(received.is_err(), "a worker has ended");
        };
        let workers = async {
            let Some(Order::Receive(answer)) = idle.recv().await else {
                panic!("another order");
            };
            answer.send(()).unwrap();
            let Some(Order::Receive(answer)) = busy.recv().await else {
                panic!("another order");
            };
            answer.send(()).unwrap();
        };
        tokio::join!(control, workers);
    }
}
