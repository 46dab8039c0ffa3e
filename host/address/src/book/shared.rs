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
use crate::database::{Database, DatabaseError, Loaded, Look, Watcher};
use crate::rules::{RuleFolder, RulesError};

/// How many problem rows a load tells in the log; all of the first hundred are in the snapshot.
pub(super) const MOST_LOGGED: usize = 20;

/// Where the database does not say whether the table has changed, it is read anew after this many times the time that reading took,
/// but no later than [`BookOptions::reread`].
const TRUST_TIMES: u32 = 60;

/// What a load that outlives its caller needs.
pub(super) struct Shared {
    pub(super) database: Database,
    pub(super) current: Arc<ArcSwap<Snapshot>>,
    /// Snapshots that a worker may still have. They are freed here and not by the worker that drops them last: freeing a
    /// million rows takes a while.
    retired: Mutex<Vec<Arc<Snapshot>>>,
    /// Reloads asked for so far. A load answers for all that were asked for when it began.
    pub(super) asked: AtomicU64,
    /// Who holds it loads.
    keeper: tokio::sync::Mutex<Keeper>,
    /// Who loads the trusted peers.
    pub(super) trusted: Turns<TrustedKeeper, Result<LoadReport, DatabaseError>>,
    /// Who loads the rules.
    pub(super) rules: Turns<RulesKeeper, Result<LoadReport, RulesError>>,
    /// Who holds it publishes.
    publishing: Mutex<()>,
    pub(super) status: Mutex<Status>,
}

/// What loads leave for each other.
struct Keeper {
    watcher: Watcher,
    /// The last reload that the result answers for.
    answers: u64,
    result: Option<Result<LoadReport, DatabaseError>>,
    /// The rows that serve, to tell whether others were read.
    digest: Option<u64>,
    /// When the last load ended, and how long it took.
    ended: Option<(Instant, Duration)>,
}

/// What to do with a table that is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unchanged {
    /// Publish it, because somebody asked for a reload.
    Publish,
    /// Leave the one that serves.
    Keep,
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
        // What changes from here on shows in the next look.
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

    /// Loads the table if it has changed; tells how long that took.
    pub(super) async fn follow(&self, options: BookOptions) -> Result<Duration, DatabaseError> {
        let mut keeper = self.keeper.lock().await;
        // All who waited for it have it, as the lock is fair; kept longer, it would keep its snapshot in memory.
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
        let loaded = self.load(&mut keeper, Unchanged::Keep).await;
        if loaded.is_err() {
            self.status.lock().failures += 1;
        }
        loaded.map(|_| begun.elapsed())
    }

    /// Whether the table may have changed. A database that cannot tell is away.
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
                DatabaseError::Unreachable { .. }
                | DatabaseError::NoFile { .. }
                | DatabaseError::File { .. } => self.is_away(),
                _ => self.answers(),
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
        if unchanged == Unchanged::Keep && keeper.digest == Some(loaded.digest) {
            debug!("The address table was read again and has not changed.");
            let snapshot = self.current.load_full();
            return Ok(LoadReport { snapshot });
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

    /// Publishes a snapshot made of the one that serves. Parts are loaded side by side, and none may undo the other's.
    pub(super) fn replace(&self, next: impl FnOnce(&Snapshot) -> Snapshot) -> Arc<Snapshot> {
        let one_at_a_time = self.publishing.lock();
        let snapshot = Arc::new(next(&self.current.load()));
        let old = self.current.swap(Arc::clone(&snapshot));
        drop(one_at_a_time);
        self.retired.lock().push(old);
        self.collect();
        snapshot
    }

    /// Frees the old snapshots that no worker has any more.
    pub(super) fn collect(&self) {
        let mut retired = self.retired.lock();
        let unused: Vec<_> = retired
            .extract_if(.., |snapshot| Arc::strong_count(snapshot) == 1)
            .collect();
        drop(retired);
        if !unused.is_empty() {
            // Freeing is work, too: not on a thread that others wait for.
            drop(tokio::task::spawn_blocking(move || drop(unused)));
        }
    }

    /// The database answers, be it with an error.
    fn answers(&self) {
        let mut status = self.status.lock();
        let was_down = matches!(status.database, DatabaseState::Down { .. });
        status.database = DatabaseState::Up;
        drop(status);
        if was_down {
            info!(
                database = self.database.address_source(),
                "The database answers again."
            );
        }
    }

    /// Tells an error once, not each time it comes.
    fn tell(&self, error: &DatabaseError) {
        let last = self.status.lock().last_error.replace(error.clone());
        if last.as_ref() != Some(error) {
            let generation = self.current.load().generation;
            warn!(%error, generation, "The address table can't be loaded and stays as it is.");
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
    /// Whether it is time to read a table of which nobody knows whether it has changed.
    fn is_due(&self, look: Look, options: BookOptions) -> bool {
        self.ended
            .is_none_or(|(ended, took)| ended.elapsed() >= trust(look, took, options))
    }
}

/// How long a table is taken for unchanged that took so long to read.
pub(super) fn trust(look: Look, took: Duration, options: BookOptions) -> Duration {
    let BookOptions { poll, reread } = options;
    match look {
        // A change would have shown, unless the server forgot it at once.
        Look::Quiet => reread.max(took * TRUST_TIMES),
        _ => (took * TRUST_TIMES).clamp(poll, reread.max(poll)),
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
        generation = snapshot.generation,
        hosts,
        subnets,
        domains,
        skipped,
        warned,
        milliseconds = snapshot.took.as_millis() as u64,
        "The address table is loaded."
    );
    for error in snapshot.errors.iter().take(MOST_LOGGED) {
        warn!("Skipped: {error}.");
    }
    if skipped > MOST_LOGGED as u64 {
        warn!("… and {} more rows.", skipped - MOST_LOGGED as u64);
    }
    for warning in snapshot.warnings.iter().take(MOST_LOGGED) {
        warn!("Odd: {warning}.");
    }
    if warned > MOST_LOGGED as u64 {
        warn!("… and {} more odd rows.", warned - MOST_LOGGED as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_tables_are_read_again_soon_and_large_ones_as_often_as_configured() {
        let (poll, reread) = (Duration::from_secs(1), Duration::from_secs(30));
        let options = BookOptions { poll, reread };
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
        };
        assert_eq!(
            trust(Look::Unknown, millis(1), often),
            reread,
            "no more often than it is looked"
        );
    }
}
