//! Questions of the control side about active transactions, which workers answer between messages.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::MutexGuard;
use tokio::time::{Instant, timeout, timeout_at};

use crate::active::{ActiveTransaction, CallName};
use crate::orders::Orders;
use crate::shared::Shared;

/// Limit of the time until a worker answers. It takes its questions between batches of messages.
const PATIENCE: Duration = Duration::from_secs(2);

/// Limit of the time until all workers have answered.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(30);

/// Limit of the time until earlier questions are answered.
const PATIENCE_WITH_OTHERS: Duration = Duration::from_secs(10);

/// Most transactions of a call that are cancelled at once.
const MOST_OF_CALL: usize = 64;

/// Earlier questions take too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the workers are still answering earlier questions about transactions: try again")]
pub struct Busy;

/// Active transactions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The transactions, in the order of the workers.
    pub transactions: Vec<ActiveTransaction>,
    /// The workers that did not answer in time, or are ending. Some of their transactions may be missing.
    pub unanswered: Vec<usize>,
}

/// What became of the transactions of a call.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cancelled {
    /// The number of targets that are not done yet; `None` if no INVITE of the call waits for its answer.
    pub pending: Option<usize>,
    /// The workers that did not answer in time, or are ending. They may still have transactions of the call.
    pub unanswered: Vec<usize>,
}

/// Lists active transactions: at most this many. It is no snapshot: each worker answers in pages, and relays messages between them.
///
/// # Errors
/// If earlier questions take too long.
pub async fn list(shared: &Shared, most: usize) -> Result<Listing, Busy> {
    if !is_stateful(shared) {
        return Ok(Listing::default());
    }
    let inspection = Inspection::begin(&shared.orders, PATIENCE_WITH_OTHERS).await?;
    Ok(inspection.list(most).await)
}

/// Cancels a call as its caller would, on every worker that answers.
///
/// # Errors
/// If earlier questions take too long.
pub async fn cancel(shared: &Shared, call: &CallName) -> Result<Cancelled, Busy> {
    if !is_stateful(shared) {
        return Ok(Cancelled::default());
    }
    let inspection = Inspection::begin(&shared.orders, PATIENCE_WITH_OTHERS).await?;
    Ok(inspection.cancel(call).await)
}

fn is_stateful(shared: &Shared) -> bool {
    shared.config.relay.mode == portcullis_config::RelayMode::Stateful
}

/// The questions of one caller. There is one at a time, so that no number of callers can keep a worker busy.
struct Inspection<'o> {
    orders: &'o Orders,
    deadline: Instant,
    _turn: MutexGuard<'o, ()>,
}

/// A worker did not answer in time, or is ending.
struct Unanswered;

impl<'o> Inspection<'o> {
    async fn begin(orders: &'o Orders, patience: Duration) -> Result<Self, Busy> {
        let turn = timeout(patience, orders.inspections.lock()).await;
        Ok(Self {
            orders,
            _turn: turn.map_err(|_| Busy)?,
            deadline: Instant::now() + PATIENCE_IN_ALL,
        })
    }

    async fn list(&self, most: usize) -> Listing {
        let mut listing = Listing::default();
        for worker in 0..self.orders.workers() {
            let listed = self.list_of(worker, most, &mut listing.transactions).await;
            if let Err(Unanswered) = listed {
                listing.unanswered.push(worker);
            }
        }
        listing
    }

    async fn cancel(&self, call: &CallName) -> Cancelled {
        let mut cancelled = Cancelled::default();
        // A call may pass through the host several times (RFC 3261 §16.3).
        let mut left = MOST_OF_CALL;
        for worker in 0..self.orders.workers() {
            let pending = &mut cancelled.pending;
            if let Err(Unanswered) = self.cancel_of(worker, call, &mut left, pending).await {
                cancelled.unanswered.push(worker);
            }
        }
        cancelled
    }

    async fn list_of(
        &self,
        worker: usize,
        most: usize,
        all: &mut Vec<ActiveTransaction>,
    ) -> Result<(), Unanswered> {
        let mut next = Some(0);
        while let Some(from) = next
            && all.len() < most
        {
            let page = self.orders.list(worker, from, most - all.len());
            let page = self.answered(page).await?;
            all.extend(page.transactions);
            next = page.next;
        }
        Ok(())
    }

    async fn cancel_of(
        &self,
        worker: usize,
        call: &CallName,
        left: &mut usize,
        pending: &mut Option<usize>,
    ) -> Result<(), Unanswered> {
        let mut next = Some(0);
        while let Some(from) = next
            && *left > 0
        {
            let page = self.orders.cancel(worker, from, call.clone(), *left);
            let page = self.answered(page).await?;
            if let Some(more) = page.pending {
                *pending = Some(pending.unwrap_or(0) + more);
            }
            *left = left.saturating_sub(page.found);
            next = page.next;
        }
        Ok(())
    }

    async fn answered<A>(
        &self,
        answer: impl Future<Output = io::Result<A>>,
    ) -> Result<A, Unanswered> {
        let deadline = self.deadline.min(Instant::now() + PATIENCE);
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(Unanswered),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;
    use crate::active::{CancelledPage, Page};
    use crate::orders::Order;

    /// The orders to three workers, of which the second has ended, and those to the others.
    fn orders() -> (Orders, [UnboundedReceiver<Order>; 2]) {
        let orders = Orders::new(3, false);
        drop(orders.of(1));
        let workers = [0, 2].map(|worker| orders.of(worker).expect("it has no reader yet"));
        (orders, workers)
    }

    #[tokio::test]
    async fn a_list_names_the_workers_that_do_not_answer() {
        let (orders, [mut first, mut third]) = orders();
        let inspection = Inspection::begin(&orders, PATIENCE).await.unwrap();
        let mut asked = Vec::new();
        let (listing, ()) = tokio::join!(inspection.list(200), async {
            asked.push(answer_list(&mut first, Some(128)).await);
            asked.push(answer_list(&mut first, None).await);
            asked.push(answer_list(&mut third, None).await);
        });
        assert_eq!(listing.unanswered, [1]);
        assert_eq!(asked, [0, 128, 0], "the first slots of all pages");
    }

    /// Answers a question with an empty page. Returns the slot at which it was to begin.
    async fn answer_list(orders: &mut UnboundedReceiver<Order>, next: Option<u32>) -> u32 {
        let Some(Order::List { from, answer, .. }) = orders.recv().await else {
            panic!("no list is asked for");
        };
        let transactions = Vec::new();
        assert!(answer.send(Page { transactions, next }).is_ok());
        from
    }

    #[tokio::test]
    async fn a_call_is_cancelled_on_all_workers_that_answer() {
        let (orders, [mut first, mut third]) = orders();
        let inspection = Inspection::begin(&orders, PATIENCE).await.unwrap();
        let call = CallName {
            call_id: "call".into(),
            cseq: 7,
        };
        let mut asked = Vec::new();
        let (cancelled, ()) = tokio::join!(inspection.cancel(&call), async {
            asked.push(answer_cancel(&mut first, 1, Some(2)).await);
            asked.push(answer_cancel(&mut third, 63, Some(1)).await);
        });
        assert_eq!(cancelled.pending, Some(3));
        assert_eq!(cancelled.unanswered, [1]);
        assert_eq!(asked, [64, 63], "the most that each may cancel");
    }

    /// Answers a question: so many transactions are found, so many targets are pending, and there are more slots. Returns the most
    /// transactions that the worker may cancel.
    async fn answer_cancel(
        orders: &mut UnboundedReceiver<Order>,
        found: usize,
        pending: Option<usize>,
    ) -> usize {
        let Some(Order::Cancel { most, answer, .. }) = orders.recv().await else {
            panic!("nothing is to be cancelled");
        };
        let page = CancelledPage {
            found,
            pending,
            next: (found > 1).then_some(128),
        };
        assert!(answer.send(page).is_ok());
        most
    }

    #[tokio::test]
    async fn nobody_waits_for_earlier_questions_without_limit() {
        let (orders, _workers) = orders();
        let _turn = orders.inspections.lock().await;
        let inspection = Inspection::begin(&orders, Duration::ZERO).await;
        assert_eq!(inspection.err(), Some(Busy));
    }
}
