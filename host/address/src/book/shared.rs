//! Loading and publishing, one load at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tracing::{debug, info, warn};

use super::rules::RulesKeeper;
use super::trusted::TrustedKeeper;
use super::turns::Turns;
use super::{BookOptions, Counts, DatabaseState, LoadReport, Snapshot, Status};
use crate::database::{Database, DatabaseError, Failure, Loaded, Look, Watcher};
use crate::rules::{RuleFolder, RulesError};
use crate::settle::{Emptied, Hold};

/// Most problem rows that a load logs; the first hundred are in the snapshot.
pub(super) const MOST_LOGGED: usize = 20;

/// A table whose database does not report changes is read again after this multiple of the duration of the last read, but no later
/// than after [`BookOptions::reread`].
const TRUST_TIMES: u32 = 60;

/// State of a load that may outlive its caller.
pub(super) struct Shared {
    pub(super) database: Database,
    pub(super) current: Arc<ArcSwap<Snapshot>>,
    /// Snapshots that a worker may still have. They are freed here and not by the worker that drops them last: freeing a
    /// million rows takes a while.
    retired: Mutex<Vec<Arc<Snapshot>>>,
    /// Number of requested reloads. A load serves all requests made before it began.
    pub(super) asked: AtomicU64,
    /// Held while loading.
    keeper: tokio::sync::Mutex<Keeper>,
    /// Held while loading the trusted peers.
    pub(super) trusted: Turns<TrustedKeeper, Result<LoadReport, DatabaseError>>,
    /// Held while loading the rules.
    pub(super) rules: Turns<RulesKeeper, Result<LoadReport, RulesError>>,
    /// Held while publishing.
    publishing: Mutex<()>,
    pub(super) status: Mutex<Status>,
}

/// State that one load leaves for the next.
struct Keeper {
    watcher: Watcher,
    /// The last request that the result serves.
    answers: u64,
    result: Option<Result<LoadReport, DatabaseError>>,
    /// Digest of the current rows, to detect a change.
    digest: Option<u64>,
    /// When the last load ended, and how long it took.
    ended: Option<(Instant, Duration)>,
    /// Whether the table has just become empty.
    emptied: Emptied,
}

/// What to do with an unchanged table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unchanged {
    /// Publish it, because a reload was requested.
    Publish,
    /// Keep the current one. A table that has become empty must stay so for this long.
    Keep { settle: Duration },
}

impl Shared {
    pub(super) fn new(database: Database, rules: RuleFolder) -> Self {
        let trusted = TrustedKeeper::new(database.clone());
        let keeper = Keeper {
            watcher: Watcher::new(database.clone()),
            answers: 0,
            result: None,
            digest: None,
            ended: None,
            emptied: Emptied::default(),
        };
        Self {
            database,
            current: Arc::new(ArcSwap::from_pointee(Snapshot::default())),
            retired: Mutex::new(Vec::new()),
            asked: AtomicU64::new(0),
            keeper: tokio::sync::Mutex::new(keeper),
            trusted: Turns::new(trusted),
            rules: Turns::new(RulesKeeper::new(rules)),
            publishing: Mutex::new(()),
            status: Mutex::new(Status::default()),
        }
    }

    pub(super) async fn reload(&self, ticket: u64) -> Result<LoadReport, DatabaseError> {
        let mut keeper = self.keeper.lock().await;
        if keeper.answers >= ticket
            && let Some(result) = &keeper.result
        {
            return result.clone();
        }
        let answers = self.asked.load(Ordering::Relaxed);
        // The next look finds later changes.
        keeper.watcher.insist();
        let result = match self.look(&mut keeper).await {
            Ok(_) => self.load(&mut keeper, Unchanged::Publish).await,
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.status.lock().failures += 1;
        }
        keeper.answers = answers;
        keeper.result = Some(result.clone());
        result
    }

    /// Loads the table if it has changed; returns how long that took.
    pub(super) async fn follow(&self, options: BookOptions) -> Result<Duration, DatabaseError> {
        let mut keeper = self.keeper.lock().await;
        // All waiting callers have the result, because the lock is fair; keeping it would keep its snapshot in memory.
        keeper.result = None;
        let is_due = match self.look(&mut keeper).await? {
            Look::Changed => true,
            look @ (Look::Unknown | Look::Quiet) => keeper.is_due(look, options),
            Look::Same => false,
        };
        if !is_due {
            return Ok(Duration::ZERO);
        }
        let begun = Instant::now();
        let settle = options.settle;
        let loaded = self.load(&mut keeper, Unchanged::Keep { settle }).await;
        if loaded.is_err() {
            self.status.lock().failures += 1;
        }
        loaded.map(|_| begun.elapsed())
    }

    /// Whether the table may have changed. An error counts as an unreachable database.
    async fn look(&self, keeper: &mut Keeper) -> Result<Look, DatabaseError> {
        let look = keeper.watcher.look().await.inspect_err(|error| {
            self.is_away();
            self.tell(error);
        })?;
        self.status.lock().changes_seen_by = keeper.watcher.source().cloned();
        Ok(look)
    }

    async fn load(
        &self,
        keeper: &mut Keeper,
        unchanged: Unchanged,
    ) -> Result<LoadReport, DatabaseError> {
        let begun = Instant::now();
        let loaded = match keeper.digest {
            // A file that is not there yet is made, but one that served and is gone leaves the table as it was.
            None => self.database.load().await,
            Some(_) => self.database.load_again().await,
        };
        let loaded = loaded.inspect_err(|error| {
            keeper.watcher.forget();
            match error {
                DatabaseError::Database(failure) if failure.is_away() => self.is_away(),
                DatabaseError::File { .. } => self.is_away(),
                DatabaseError::Database(_)
                | DatabaseError::NoUsableLine { .. }
                | DatabaseError::IsFile { .. }
                | DatabaseError::Build(_) => self.answers(),
            }
            self.tell(error);
        })?;
        let took = begun.elapsed();
        keeper.ended = Some((Instant::now(), took));
        self.answers();
        let mut status = self.status.lock();
        status.loads += 1;
        status.last_error = None;
        drop(status);
        let current = self.current.load_full();
        let is_emptied = loaded.table.is_empty() && !current.table.is_empty();
        let (settle, is_same) = match unchanged {
            Unchanged::Publish => (Duration::ZERO, false),
            Unchanged::Keep { settle } => (settle, keeper.digest == Some(loaded.digest)),
        };
        match keeper.emptied.hold(is_emptied, settle, Instant::now()) {
            hold @ (Hold::Begins | Hold::Goes) => {
                keeper.watcher.forget();
                tell_emptied(hold, "address", settle);
                return Ok(LoadReport { snapshot: current });
            }
            Hold::Over => warn!(
                event = "table_empty",
                "address table is empty: no source is in any group"
            ),
            Hold::None if is_same => {
                debug!(
                    event = "table_unchanged",
                    "address table read again, unchanged"
                );
                return Ok(LoadReport { snapshot: current });
            }
            Hold::None => {}
        }
        keeper.digest = Some(loaded.digest);
        Ok(self.publish(loaded, took))
    }

    fn publish(&self, loaded: Loaded, took: Duration) -> LoadReport {
        let snapshot = self.replace(|old| {
            let (trusted, rules) = (Arc::clone(&old.trusted), Arc::clone(&old.rules));
            Snapshot::new(loaded, old.generation + 1, took, trusted, rules)
        });
        tell(&snapshot);
        LoadReport { snapshot }
    }

    /// Publishes a snapshot derived from the current one. Parts are loaded concurrently, and none may undo the other's change.
    pub(super) fn replace(&self, next: impl FnOnce(&Snapshot) -> Snapshot) -> Arc<Snapshot> {
        let one_at_a_time = self.publishing.lock();
        let snapshot = Arc::new(next(&self.current.load()));
        let old = self.current.swap(Arc::clone(&snapshot));
        drop(one_at_a_time);
        self.retired.lock().push(old);
        self.collect();
        snapshot
    }

    /// Frees the old snapshots that no worker uses any more.
    pub(super) fn collect(&self) {
        let mut retired = self.retired.lock();
        let unused: Vec<_> = retired
            .extract_if(.., |snapshot| Arc::strong_count(snapshot) == 1)
            .collect();
        drop(retired);
        if !unused.is_empty() {
            // Freeing takes time, so it is done on another thread.
            drop(tokio::task::spawn_blocking(move || drop(unused)));
        }
    }

    /// The database has answered, even if with an error.
    fn answers(&self) {
        let mut status = self.status.lock();
        let was_down = matches!(status.database, DatabaseState::Down { .. });
        status.database = DatabaseState::Up;
        drop(status);
        if was_down {
            info!(
                event = "database_back",
                database = self.database.address_source(),
                "database answers again"
            );
        }
    }

    /// Logs an error once, not each time it repeats.
    fn tell(&self, error: &DatabaseError) {
        let last = self.status.lock().last_error.replace(error.clone());
        if last.as_ref() != Some(error) {
            let generation = self.current.load().generation;
            let event = event_of(error);
            warn!(event, %error, generation, "address table not loaded, the previous one stays");
        }
    }

    fn is_away(&self) {
        let mut status = self.status.lock();
        if !matches!(status.database, DatabaseState::Down { .. }) {
            let since = SystemTime::now();
            status.database = DatabaseState::Down { since };
        }
    }
}

impl Keeper {
    /// Whether it is time to read a table whose changes are not reported.
    fn is_due(&self, look: Look, options: BookOptions) -> bool {
        self.ended
            .is_none_or(|(ended, took)| ended.elapsed() >= trust(look, took, options))
    }
}

/// How long a table is assumed unchanged, by the duration of its last read.
pub(super) fn trust(look: Look, took: Duration, options: BookOptions) -> Duration {
    let BookOptions { poll, reread, .. } = options;
    match look {
        // The server would have reported a change, unless it lost its memory of it.
        Look::Quiet => reread.max(took * TRUST_TIMES),
        Look::Same | Look::Changed | Look::Unknown => {
            (took * TRUST_TIMES).clamp(poll, reread.max(poll))
        }
    }
}

/// Logs once that a table has become empty and its rows are kept.
pub(super) fn tell_emptied(hold: Hold, table: &str, settle: Duration) {
    if hold == Hold::Begins {
        warn!(
            event = "table_emptied",
            table,
            "The table has become empty: what it held serves on until it has been empty for {settle:?}, or a reload is asked for."
        );
    }
}

/// The `event` of a database error in the log.
pub(super) fn event_of(error: &DatabaseError) -> &'static str {
    match error {
        DatabaseError::Database(Failure::Hung { .. }) => "database_hung",
        DatabaseError::Database(Failure::Unreachable { .. }) => "database_unreachable",
        DatabaseError::Database(_)
        | DatabaseError::File { .. }
        | DatabaseError::NoUsableLine { .. }
        | DatabaseError::IsFile { .. }
        | DatabaseError::Build(_) => "table_not_loaded",
    }
}

fn tell(snapshot: &Snapshot) {
    let Counts {
        hosts,
        subnets,
        domains,
        skipped,
        warned,
    } = snapshot.counts;
    info!(
        event = "table_loaded",
        generation = snapshot.generation,
        hosts,
        subnets,
        domains,
        skipped,
        warned,
        milliseconds = snapshot.took.as_millis() as u64,
        "address table loaded"
    );
    for error in snapshot.errors.iter().take(MOST_LOGGED) {
        warn!(
            event = "row_skipped",
            "row of the address table skipped: {error}"
        );
    }
    if skipped > MOST_LOGGED as u64 {
        warn!(
            event = "row_skipped",
            "{} further rows of the address table skipped",
            skipped - MOST_LOGGED as u64
        );
    }
    for warning in snapshot.warnings.iter().take(MOST_LOGGED) {
        warn!(
            event = "row_odd",
            "row of the address table used with a reservation: {warning}"
        );
    }
    if warned > MOST_LOGGED as u64 {
        warn!(
            event = "row_odd",
            "{} further rows of the address table used with a reservation",
            warned - MOST_LOGGED as u64
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_tables_are_read_again_soon_and_large_ones_as_often_as_configured() {
        let (poll, reread) = (Duration::from_secs(1), Duration::from_secs(30));
        let options = BookOptions {
            poll,
            reread,
            ..BookOptions::default()
        };
        let millis = Duration::from_millis;
        for (look, took, trusted) in [
            (Look::Unknown, millis(1), poll),
            (Look::Unknown, millis(100), millis(6_000)),
            (Look::Unknown, millis(5_000), reread),
            (Look::Quiet, millis(1), reread),
            (Look::Quiet, millis(1_000), millis(60_000)),
        ] {
            assert_eq!(trust(look, took, options), trusted, "{look:?} {took:?}");
        }
        let often = BookOptions {
            poll: reread,
            reread: poll,
            ..options
        };
        assert_eq!(
            trust(Look::Unknown, millis(1), often),
            reread,
            "no more often than it is looked"
        );
    }
}
