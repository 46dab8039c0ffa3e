//! A queue between many senders' turns and one receiver. It takes no memory while it is empty: each of thousands of idle connections has one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::task::coop::consume_budget;

/// Items for which an empty queue keeps room: as many as one that is in use holds most of the time.
const KEPT: usize = 4;

/// A queue: its sender, and its receiver.
pub(super) fn mailbox<T>() -> (Sender<T>, Receiver<T>) {
    let state = Arc::new(Mutex::new(State {
        waiting: VecDeque::new(),
        receiver: None,
        is_closed: false,
        has_ended: false,
    }));
    (Sender(Arc::clone(&state)), Receiver(state))
}

/// The sending end. When it is dropped, the receiver gets what waits, and then the end.
#[derive(Debug)]
pub(super) struct Sender<T>(Arc<Mutex<State<T>>>);

/// The receiving end. What waits when it is dropped is dropped, too.
#[derive(Debug)]
pub(super) struct Receiver<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    /// The receiver, while it waits.
    receiver: Option<Waker>,
    /// The receiver accepts nothing more.
    is_closed: bool,
    /// The sender sends nothing more.
    has_ended: bool,
}

impl<T> Sender<T> {
    /// Appends an item.
    ///
    /// # Errors
    /// The item, if the receiver accepts nothing more.
    pub(super) fn send(&self, item: T) -> Result<(), T> {
        let mut state = self.0.lock();
        if state.is_closed {
            return Err(item);
        }
        state.waiting.push_back(item);
        let receiver = state.receiver.take();
        drop(state);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.has_ended = true;
        let receiver = state.receiver.take();
        drop(state);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The next item; `None` when nothing waits and nothing more comes.
    pub(super) async fn next(&self) -> Option<T> {
        // Whoever takes from a queue that other threads never let become empty lets other tasks run, too.
        consume_budget().await;
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The next item, if one is waiting.
    pub(super) fn next_now(&self) -> Option<T> {
        self.0.lock().take()
    }

    /// Accepts nothing more. What waits can still be taken.
    pub(super) fn close(&self) {
        self.0.lock().is_closed = true;
    }

    fn poll_next(&self, context: &Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        let item = state.take();
        if item.is_some() || state.is_closed || state.has_ended {
            return Poll::Ready(item);
        }
        match &mut state.receiver {
            Some(receiver) => receiver.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        // Dropped without the lock.
        drop(waiting);
    }
}

impl<T> State<T> {
    fn take(&mut self) -> Option<T> {
        let item = self.waiting.pop_front();
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT {
            self.waiting.shrink_to(KEPT);
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn items_come_in_their_order_and_then_the_end() {
        let (sender, receiver) = mailbox();
        for item in 0..100 {
            sender.send(item).unwrap();
        }
        assert_eq!(receiver.next_now(), Some(0));
        drop(sender);
        for item in 1..100 {
            assert_eq!(receiver.next().await, Some(item));
        }
        assert_eq!(receiver.next().await, None);
        assert_eq!(receiver.next_now(), None);
        assert!(receiver.0.lock().waiting.capacity() <= KEPT);
    }

    #[tokio::test]
    async fn a_receiver_that_waits_is_woken_up() {
        let (sender, receiver) = mailbox();
        let task = tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(item) = receiver.next().await {
                all.push(item);
            }
            all
        });
        for item in 0..10 {
            sender.send(item).unwrap();
            tokio::task::yield_now().await;
        }
        drop(sender);
        assert_eq!(task.await.unwrap(), (0..10).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_receiver_that_never_waits_lets_others_run() {
        const COUNT: usize = 100_000;
        let (sender, receiver) = mailbox();
        for item in 0..COUNT {
            sender.send(item).unwrap();
        }
        drop(sender);
        let task = tokio::spawn(async move {
            let mut count = 0;
            while receiver.next().await.is_some() {
                count += 1;
            }
            count
        });
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        assert_eq!(task.await.unwrap(), COUNT);
    }

    #[tokio::test]
    async fn a_closed_one_accepts_nothing_and_gives_what_waits() {
        let (sender, receiver) = mailbox();
        sender.send("a").unwrap();
        receiver.close();
        assert_eq!(sender.send("b"), Err("b"));
        assert_eq!(receiver.next().await, Some("a"));
        assert_eq!(receiver.next().await, None);
    }

    #[test]
    fn what_waits_is_dropped_with_the_receiver_and_an_empty_one_has_no_memory() {
        static DROPPED: AtomicUsize = AtomicUsize::new(0);
        struct Item;
        impl Drop for Item {
            fn drop(&mut self) {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Items without a size would need no memory in any number.
        let (sender, receiver) = mailbox::<(Item, u8)>();
        assert_eq!(receiver.0.lock().waiting.capacity(), 0);
        assert!(sender.send((Item, 1)).is_ok());
        drop(receiver);
        assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
        assert!(sender.send((Item, 2)).is_err());
        assert_eq!(DROPPED.load(Ordering::Relaxed), 2);
    }
}
