//! Messages that one worker hands over to another one, which owns their transactions.

use crossbeam_queue::ArrayQueue;
use portcullis_sip::{Arrival, Branch, Framing};
use tokio::sync::{Notify, watch};

/// Most messages that wait for one worker.
const MOST_WAITING: usize = 4_096;

/// What a worker hands over to another one.
#[derive(Debug)]
pub(crate) enum Item {
    /// A received message.
    Message {
        bytes: Vec<u8>,
        arrival: Arrival,
        framing: Framing,
    },
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
    is_filled: Notify,
}

impl Handovers {
    /// Empty queues for this many workers.
    pub fn new(workers: usize) -> Self {
        let queue = |_| Queue {
            // A single worker hands nothing over.
            items: ArrayQueue::new(if workers > 1 { MOST_WAITING } else { 1 }),
            is_filled: Notify::new(),
        };
        Self {
            queues: (0..workers).map(queue).collect(),
            giving: watch::Sender::new(workers),
        }
    }

    /// Hands something over to a worker. Returns false if its queue is full: the item is lost.
    pub(crate) fn push(&self, worker: usize, item: Item) -> bool {
        let Some(queue) = self.queues.get(worker) else {
            return false;
        };
        let is_taken = queue.items.push(item).is_ok();
        queue.is_filled.notify_one();
        is_taken
    }

    /// The next item for a worker.
    pub(crate) fn pop(&self, worker: usize) -> Option<Item> {
        self.queues.get(worker)?.items.pop()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_in_their_order_and_a_full_queue_takes_no_more() {
        let handovers = Handovers::new(2);
        let item = || Item::Message {
            bytes: vec![],
            arrival: Arrival {
                source: ([127, 0, 0, 1], 1).into(),
                local: ([127, 0, 0, 1], 2).into(),
                transport: portcullis_sip::Transport::Udp,
                connection: None,
            },
            framing: Framing::Datagram,
        };
        for _ in 0..MOST_WAITING {
            assert!(handovers.push(1, item()));
        }
        assert!(!handovers.push(1, item()));
        assert!(!handovers.push(2, item()), "there is no such worker");
        assert!(handovers.pop(0).is_none());
        assert_eq!(
            std::iter::from_fn(|| handovers.pop(1)).count(),
            MOST_WAITING
        );
    }
}
