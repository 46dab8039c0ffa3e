//! Loading and publishing the addresses.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portcullis_database::Looked;
use portcullis_sync::SingleFlight;
use tracing::{debug, info, warn};

use super::options::BookOptions;
use super::published::Published;
use super::snapshot::{Counts, Snapshot};
use super::status::{DatabaseState, LoadReport};
use super::tell::{MOST_LOGGED, event_of, tell_emptied};
use crate::database::{Database, DatabaseError, Loaded, Look, Watcher};
use crate::settle::{Emptied, Hold};

/// Loads the table of addresses, one load at a time.
pub(super) struct AddressLoader {
    database: Database,
    published: Arc<Published>,
    pub(super) flights: SingleFlight<Keeper, Result<LoadReport, DatabaseError>>,
}

/// State that one load leaves for the next.
pub(super) struct Keeper {
    watcher: Watcher,
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

impl AddressLoader {
    pub(super) fn new(database: Database, published: Arc<Published>) -> Self {
        let keeper = Keeper {
            watcher: Watcher::new(database.clone()),
            digest: None,
            ended: None,
            emptied: Emptied::default(),
        };
        Self {
            database,
            published,
            flights: SingleFlight::new(keeper),
        }
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub(super) async fn reload(&self, ticket: u64) -> Result<LoadReport, DatabaseError> {
        let load = async |keeper: &mut Keeper| {
            // The next look finds later changes.
            keeper.watcher.insist();
            let result = match self.look(keeper, None).await {
                Ok(_) => self.load(keeper, Unchanged::Publish).await,
                Err(error) => Err(error),
            };
            if result.is_err() {
                self.published.status.lock().failures += 1;
            }
            result
        };
        self.flights.answer(ticket, load).await
    }

    /// Loads the table if it has changed, as this look at the database says, or one that is made now; returns how long that took.
    pub(super) async fn follow(
        &self,
        options: BookOptions,
        looked: Option<&Looked>,
    ) -> Result<Duration, DatabaseError> {
        let mut flight = self.flights.take().await;
        let keeper = &mut flight.state;
        let is_due = match self.look(keeper, looked).await? {
            Look::Changed => true,
            look @ (Look::Unknown | Look::Quiet) => keeper.is_due(look, options),
            Look::Same => false,
        };
        if !is_due {
            return Ok(Duration::ZERO);
        }
        let begun = Instant::now();
        let settle = options.settle;
        let loaded = self.load(keeper, Unchanged::Keep { settle }).await;
        if loaded.is_err() {
            self.published.status.lock().failures += 1;
        }
        loaded.map(|_| begun.elapsed())
    }

    /// Whether the table may have changed. Any error counts as an unreachable database.
    async fn look(
        &self,
        keeper: &mut Keeper,
        looked: Option<&Looked>,
    ) -> Result<Look, DatabaseError> {
        let look = keeper.watcher.look_at(looked).await;
        let look = look.inspect_err(|error| {
            self.is_away();
            self.tell(error);
        })?;
        let mut status = self.published.status.lock();
        status.looked_at = Some(Instant::now());
        status.changes_seen_by = keeper.watcher.source().cloned();
        drop(status);
        Ok(look)
    }

    async fn load(
        &self,
        keeper: &mut Keeper,
        unchanged: Unchanged,
    ) -> Result<LoadReport, DatabaseError> {
        let begun = Instant::now();
        let loaded = match keeper.digest {
            // A missing file is created at the first load. Later, a missing file is an error and the table stays.
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
        let mut status = self.published.status.lock();
        status.loads += 1;
        status.looked_at = Some(Instant::now());
        status.last_error = None;
        drop(status);
        let current = self.published.current.load_full();
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
                "address table is empty: all groups are empty"
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
        let snapshot = self.published.replace(|old| {
            let (trusted, rules) = (Arc::clone(&old.trusted), Arc::clone(&old.rules));
            Snapshot::new(loaded, old.generation + 1, took, trusted, rules)
        });
        tell(&snapshot);
        LoadReport { snapshot }
    }

    /// Notes that the database has answered, even if with an error.
    fn answers(&self) {
        let mut status = self.published.status.lock();
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

    /// Logs an error once, and not again while it repeats.
    fn tell(&self, error: &DatabaseError) {
        let last = self
            .published
            .status
            .lock()
            .last_error
            .replace(error.clone());
        if last.as_ref() != Some(error) {
            let generation = self.published.current.load().generation;
            let event = event_of(error);
            warn!(event, %error, generation, "address table not loaded, the previous one stays");
        }
    }

    fn is_away(&self) {
        let mut status = self.published.status.lock();
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
            .is_none_or(|(ended, took)| ended.elapsed() >= options.trust(look, took))
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
            "row of the address table used, with a warning: {warning}"
        );
    }
    if warned > MOST_LOGGED as u64 {
        warn!(
            event = "row_odd",
            "{} further rows of the address table used, with warnings",
            warned - MOST_LOGGED as u64
        );
    }
}
