//! Messages that one worker hands over to another one, which owns their transactions.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use portcullis_sip::{Arrival, Branch, Framing};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

/// Most messages that wait for one worker.
const MOST_WAITING: usize = 4_096;

/// Most bytes of messages that wait for one worker.
const MOST_BYTES: usize = 16 << 20;

/// What is handed over to a worker.
#[derive(Debug)]
pub(crate) enum Item {
    /// A received message.
    Message {
        bytes: Vec<u8>,
        arrival: Arrival,
        framing: Framing,
    },
    /// A datagram that another host has received, and that belongs to a transaction of this one.
    Passed { bytes: Vec<u8>, arrival: Arrival },
    /// The branch of a request that could not be delivered.
    Undelivered(Branch),
}

/// The queues of all workers.
#[derive(Debug)]
pub struct Handovers {
    queues: Box<[Queue]>,
    /// Workers that may still hand something over.
    giving: watch::Sender<usize>,
}

#[derive(Debug)]
struct Queue {
    items: ArrayQueue<Item>,
    /// Bytes of the messages in `items`.
    bytes: AtomicUsize,
    is_filled: Notify,
    has_room: Notify,
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Message { bytes, .. } | Self::Passed { bytes, .. } => bytes.len(),
            Self::Undelivered(_) => 0,
        }
    }
}

impl Handovers {
    /// Empty queues for this many workers.
    pub fn new(workers: usize) -> Self {
        match workers {
            // Nothing is handed over to the only worker of a host.
            0 | 1 => Self::with_room(workers, 1),
            _ => Self::with_room(workers, MOST_WAITING),
        }
    }

    /// The same for a host that gets messages from other hosts.
    pub fn among_hosts(workers: usize) -> Self {
        Self::with_room(workers, MOST_WAITING)
    }

    fn with_room(workers: usize, room: usize) -> Self {
        let queue = |_| Queue {
            items: ArrayQueue::new(room),
            bytes: AtomicUsize::new(0),
            is_filled: Notify::new(),
            has_room: Notify::new(),
        };
        Self {
            queues: (0..workers).map(queue).collect(),
            giving: watch::Sender::new(workers),
        }
    }

    /// Hands something over to a worker. Returns the item if the queue is full.
    pub(crate) fn push(&self, worker: usize, item: Item) -> Result<(), Item> {
        match self.queues.get(worker) {
            Some(queue) => queue.push(item),
            None => Err(item),
        }
    }

    /// Hands something over to a worker as soon as its queue has room. Returns false if that takes too long: the item is lost.
    pub(crate) async fn push_within(&self, time: Duration, worker: usize, mut item: Item) -> bool {
        let Some(queue) = self.queues.get(worker) else {
            return false;
        };
        let deadline = Instant::now() + time;
        loop {
            let mut has_room = pin!(queue.has_room.notified());
            // From here on no room is missed.
            has_room.as_mut().enable();
            item = match queue.push(item) {
                Ok(()) => return true,
                Err(item) => item,
            };
            if timeout_at(deadline, has_room).await.is_err() {
                return false;
            }
        }
    }

    /// The next item for a worker.
    pub(crate) fn pop(&self, worker: usize) -> Option<Item> {
        let queue = self.queues.get(worker)?;
        let item = queue.items.pop()?;
        queue.bytes.fetch_sub(item.bytes(), Ordering::Relaxed);
        queue.has_room.notify_waiters();
        Some(item)
    }

    /// Notes that a worker hands nothing over any more.
    pub(crate) fn ends(&self) {
        self.giving
            .send_modify(|giving| *giving = giving.saturating_sub(1));
    }

    /// Completes when no worker hands anything over any more.
    pub(crate) async fn ended(&self) {
        // The sender lives as long as `self`.
        let mut giving = self.giving.subscribe();
        let _ended = giving.wait_for(|giving| *giving == 0).await;
    }

    /// Waits until something has been handed over to a worker since the last call.
    pub(crate) async fn filled(&self, worker: usize) {
        match self.queues.get(worker) {
            Some(queue) => queue.is_filled.notified().await,
            None => std::future::pending().await,
        }
    }
}

impl Queue {
    fn push(&self, item: Item) -> Result<(), Item> {
        let bytes = item.bytes();
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let pushed = match before + bytes <= MOST_BYTES {
            true => self.items.push(item),
            false => Err(item),
        };
        if pushed.is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.is_filled.notify_one();
        pushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Item {
        Item::Message {
            bytes: vec![0; bytes],
            arrival: Arrival {
                source: ([127, 0, 0, 1], 1).into(),
                local: ([127, 0, 0, 1], 2).into(),
                transport: portcullis_sip::Transport::Udp,
                connection: None,
            },
            framing: Framing::Datagram,
        }
    }

    #[test]
    fn items_come_out_in_their_order_and_a_full_queue_takes_no_more() {
        let handovers = Handovers::new(2);
        for _ in 0..MOST_WAITING {
            assert!(handovers.push(1, message(0)).is_ok());
        }
        assert!(handovers.push(1, message(0)).is_err());
        let nobody = handovers.push(2, message(0));
        assert!(nobody.is_err(), "there is no such worker");
        assert!(handovers.pop(0).is_none());
        assert_eq!(
            std::iter::from_fn(|| handovers.pop(1)).count(),
            MOST_WAITING
        );
    }

    #[test]
    fn the_bytes_of_a_queue_are_limited() {
        let handovers = Handovers::new(2);
        for _ in 0..4 {
            assert!(handovers.push(1, message(MOST_BYTES / 4)).is_ok());
        }
        for _ in 0..2 {
            assert!(handovers.push(1, message(1)).is_err());
        }
        assert!(handovers.pop(1).is_some());
        assert!(handovers.push(1, message(MOST_BYTES / 4)).is_ok());
    }

    #[tokio::test]
    async fn a_stream_waits_for_room() {
        let handovers = Handovers::new(2);
        assert!(handovers.push(1, message(MOST_BYTES)).is_ok());
        let at_once = Duration::ZERO;
        assert!(!handovers.push_within(at_once, 1, message(1)).await);
        let time = Duration::from_secs(60);
        let (is_taken, popped) = tokio::join!(handovers.push_within(time, 1, message(1)), async {
            handovers.pop(1)
        });
        assert!(is_taken && popped.is_some());
        assert_eq!(handovers.pop(1).unwrap().bytes(), 1);
    }
}
