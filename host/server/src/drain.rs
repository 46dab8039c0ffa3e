//! The time between SIGTERM and the end of a host, in which calls in set-up are answered.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::RelayMode;
use portcullis_dataplane::drain::Stage;
use portcullis_dataplane::shared::Shared;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout_at};

/// Interval of the checks whether a transaction is in progress.
const CHECK: Duration = Duration::from_millis(20);

/// A drain that may have begun.
#[derive(Default)]
pub(crate) struct Draining(Option<JoinHandle<()>>);

impl Draining {
    /// Begins, unless it has begun already or the host has no transactions. Returns whether it has begun now.
    pub(crate) fn begin(&mut self, shared: &Arc<Shared>) -> bool {
        if self.0.is_some() || shared.config.relay.mode == RelayMode::Stateless {
            return false;
        }
        self.0 = Some(tokio::spawn(drain(Arc::clone(shared))));
        true
    }

    /// Completes when the host may end.
    pub(crate) async fn ended(&mut self) {
        match &mut self.0 {
            Some(draining) => drop(draining.await),
            None => std::future::pending().await,
        }
    }
}

async fn drain(shared: Arc<Shared>) {
    let settings = &shared.config.transactions;
    let deadline = Instant::now() + settings.drain;
    shared.drain.move_to(Stage::Announced);
    tracing::info!(
        event = "draining",
        active = active(&shared),
        "the host ends when no transaction is in progress"
    );
    sleep(settings.drain_notice.min(settings.drain)).await;
    shared.drain.move_to(Stage::Refusing);
    tracing::info!(
        event = "refusing",
        active = active(&shared),
        "requests outside of dialogs are answered 503 from now on"
    );
    let quiet = async {
        // A decision in progress may still begin a transaction.
        let _decided = shared.live_on_all_workers(settings.drain).await;
        let mut tick = interval(CHECK);
        while active(&shared) > 0 {
            tick.tick().await;
        }
    };
    if timeout_at(deadline, quiet).await.is_err() && active(&shared) > 0 {
        tracing::warn!(
            event = "not_drained",
            active = active(&shared),
            "transactions are still in progress after {:?}; the host ends nevertheless",
            settings.drain
        );
    }
}

/// Transactions in progress on all workers.
fn active(shared: &Shared) -> u64 {
    let workers = shared.counters.iter();
    workers
        .map(|worker| worker.transactions.active.value())
        .sum()
}
