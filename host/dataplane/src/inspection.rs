//! Questions of the control side about active transactions, which workers answer between messages.

use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::active::{ActiveTransaction, CallName, Page};
use crate::handover::Item;
use crate::shared::Shared;

/// Limit of the time until a worker takes a question, and until it answers. A worker takes up its queue after each batch of messages.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most transactions with one Call-ID and CSeq number that are cancelled at once.
const MOST_OF_CALL: usize = 64;

/// A worker does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("worker {0} does not answer: its queue is full, or it is ending")]
pub struct Unanswered(pub usize);

/// Lists active transactions: at most this many, and only those of a call if one is named. It is no snapshot: each worker answers in pages, and
/// relays messages between them.
///
/// # Errors
/// If a worker does not answer within seconds.
pub async fn list(
    shared: &Shared,
    only: Option<&CallName>,
    most: usize,
) -> Result<Vec<ActiveTransaction>, Unanswered> {
    let mut all = Vec::new();
    if !is_stateful(shared) {
        return Ok(all);
    }
    // One question at a time, so that no number of callers can keep a worker busy.
    let _turn = shared.handovers.inspections.lock().await;
    for worker in 0..shared.counters.len() {
        let mut next = Some(0);
        while let Some(from) = next {
            let left = most - all.len();
            if left == 0 {
                return Ok(all);
            }
            let page: Page = ask(shared, worker, |reply| Item::List {
                from,
                only: only.cloned(),
                most: left,
                reply,
            })
            .await?;
            all.extend(page.transactions);
            next = page.next;
        }
    }
    Ok(all)
}

/// Cancels a call as its caller would. Returns the number of targets that are not done yet; `None` if no such INVITE waits for its answer.
///
/// # Errors
/// If a worker does not answer within seconds.
pub async fn cancel(shared: &Shared, call: &CallName) -> Result<Option<usize>, Unanswered> {
    let found = list(shared, Some(call), MOST_OF_CALL).await?;
    let mut cancelled = None;
    // A call may pass through the host several times (RFC 3261 §16.3).
    for ActiveTransaction { worker, id, .. } in found {
        let pending: Option<usize> =
            ask(shared, worker, |reply| Item::Cancel { id, reply }).await?;
        if let Some(pending) = pending {
            cancelled = Some(cancelled.unwrap_or(0) + pending);
        }
    }
    Ok(cancelled)
}

async fn ask<A>(
    shared: &Shared,
    worker: usize,
    question: impl FnOnce(oneshot::Sender<A>) -> Item,
) -> Result<A, Unanswered> {
    let (reply, answer) = oneshot::channel();
    let item = question(reply);
    if !shared.handovers.push_within(PATIENCE, worker, item).await {
        return Err(Unanswered(worker));
    }
    match timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(Unanswered(worker)),
    }
}

fn is_stateful(shared: &Shared) -> bool {
    shared.config.relay.mode == portcullis_config::RelayMode::Stateful
}
