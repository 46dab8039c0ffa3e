//! One load at a time, and one for all who wait.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, MutexGuard};

/// Hands what a part's loads need from one to the next. Who waits for a load shares the result of the next one with all others who
/// wait.
pub(super) struct Turns<K, R> {
    /// Reloads asked for so far. A load answers for all that were asked for when it began.
    asked: AtomicU64,
    turn: Mutex<Turn<K, R>>,
}

/// Who holds it loads.
pub(super) struct Turn<K, R> {
    pub(super) keeper: K,
    /// The last reload that the result answers for.
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

    /// Asks for a reload: the number to come with.
    pub(super) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The result of a load that began after this number was asked for; `load` makes one if need be.
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

    /// The next turn, for a load that nobody asked for. The result of the last one is dropped: all who waited for it have it, as the
    /// lock is fair, and kept longer it would keep its snapshot in memory.
    pub(super) async fn take(&self) -> MutexGuard<'_, Turn<K, R>> {
        let mut turn = self.turn.lock().await;
        turn.result = None;
        turn
    }
}
