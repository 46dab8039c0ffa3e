//! One load at a time; its result is shared by all waiting callers.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, MutexGuard};

/// Passes the state of a part from one load to the next. All callers that wait share the result of the next load.
pub(super) struct Turns<K, R> {
    /// Number of requested reloads. A load serves all requests made before it began.
    asked: AtomicU64,
    turn: Mutex<Turn<K, R>>,
}

/// Held while loading.
pub(super) struct Turn<K, R> {
    pub(super) keeper: K,
    /// The last request that the result serves.
    answers: u64,
    result: Option<R>,
}

impl<K, R: Clone> Turns<K, R> {
    pub(super) fn new(keeper: K) -> Self {
        Self {
            asked: AtomicU64::new(0),
            turn: Mutex::new(Turn {
                keeper,
                answers: 0,
                result: None,
            }),
        }
    }

    /// Requests a reload; returns the number of the request.
    pub(super) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The result of a load that began after this request; runs `load` if there is none yet.
    pub(super) async fn answer(&self, ticket: u64, load: impl AsyncFnOnce(&mut K) -> R) -> R {
        let mut turn = self.turn.lock().await;
        if turn.answers >= ticket
            && let Some(result) = &turn.result
        {
            return result.clone();
        }
        let answers = self.asked.load(Ordering::Relaxed);
        let result = load(&mut turn.keeper).await;
        turn.answers = answers;
        turn.result = Some(result.clone());
        result
    }

    /// The next turn, for a load without a request. Drops the result of the last load: all waiting callers have it, because the lock is
    /// fair, and keeping it would keep its snapshot in memory.
    pub(super) async fn take(&self) -> MutexGuard<'_, Turn<K, R>> {
        let mut turn = self.turn.lock().await;
        turn.result = None;
        turn
    }
}
