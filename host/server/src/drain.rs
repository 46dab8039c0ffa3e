//! The time between SIGTERM, or an upgrade, and the end of a process, in which calls in set-up are answered.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::RelayMode;
use portcullis_dataplane::drain::Stage;
use portcullis_dataplane::shared::Shared;
use portcullis_dataplane::transport::Unused;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

/// Interval of the checks whether a transaction is in progress.
const CHECK: Duration = Duration::from_millis(20);

/// Interval of the checks whether a process has anything left after an upgrade.
const CHECK_LEFT: Duration = Duration::from_millis(100);

/// After an upgrade, a connection without a request in progress is closed when it has not been used for this time: longer than an ACK takes, or a
/// request with the credentials that a response asked for.
const UNUSED: Duration = Duration::from_secs(1);

/// A drain that may have begun.
#[derive(Default)]
pub(crate) struct Draining {
    task: Option<JoinHandle<()>>,
    is_leaving: bool,
}

impl Draining {
    /// Begins, unless it has begun already or the host has no transactions. Returns whether it has begun now.
    pub(crate) fn begin(&mut self, shared: &Arc<Shared>) -> bool {
        if self.task.is_some() || shared.config.relay.mode == RelayMode::Stateless {
            return false;
        }
        self.task = Some(tokio::spawn(drain(Arc::clone(shared))));
        true
    }

    /// Begins after another process has taken the sockets over. Returns whether this is in place of a drain that had begun.
    pub(crate) fn leave(&mut self, shared: &Arc<Shared>) -> bool {
        self.is_leaving = true;
        let drain = self.task.replace(tokio::spawn(leave(Arc::clone(shared))));
        if let Some(drain) = &drain {
            drain.abort();
        }
        drain.is_some()
    }

    /// Whether another process has the sockets.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// Completes when the host may end.
    pub(crate) async fn ended(&mut self) {
        match &mut self.task {
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
        let mut tick = interval(CHECK);
        loop {
            // A request that waits for its decision may still begin a transaction.
            shared.orders.settle().await;
            if active(&shared) == 0 && !shared.drain.has_predecessor() {
                break;
            }
            tick.tick().await;
        }
    };
    if timeout_at(deadline, quiet).await.is_err() {
        warn_of_rest(&shared);
    }
}

/// Returns when nothing is left that only this process can serve, or after `drain`. Connections without a request in
/// progress are closed meanwhile: their peers open others, to the process that has the sockets.
async fn leave(shared: Arc<Shared>) {
    let deadline = Instant::now() + shared.config.transactions.drain;
    let close_unused = async {
        let mut unused = Unused::default();
        let mut tick = interval(UNUSED);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            shared.connections.close_unused(&mut unused);
        }
    };
    let nothing_left = async {
        let mut tick = interval(CHECK_LEFT);
        while stored(&shared) > 0 || !shared.connections.is_empty() {
            tick.tick().await;
        }
    };
    tokio::select! {
        in_time = timeout_at(deadline, nothing_left) => {
            if in_time.is_err() {
                warn_of_rest(&shared);
            }
        }
        never = close_unused => never,
    }
}

fn warn_of_rest(shared: &Shared) {
    let active = active(shared);
    if active > 0 {
        tracing::warn!(
            event = "not_drained",
            active,
            "transactions are still in progress after {:?}; the process ends nevertheless",
            shared.config.transactions.drain
        );
    }
}

/// Transactions on all workers, in progress or absorbing retransmissions.
fn stored(shared: &Shared) -> u64 {
    let workers = shared.counters.iter();
    let lingering = workers.map(|worker| worker.transactions.lingering.value());
    active(shared) + lingering.sum::<u64>()
}

/// Transactions in progress on all workers.
fn active(shared: &Shared) -> u64 {
    let workers = shared.counters.iter();
    workers
        .map(|worker| worker.transactions.active.value())
        .sum()
}
