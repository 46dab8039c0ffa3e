//! Loading and publishing the trusted peers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_database::Looked;
use portcullis_sync::SingleFlight;
use tracing::{info, warn};

use super::options::BookOptions;
use super::parts::TrustedPart;
use super::published::Published;
use super::snapshot::Snapshot;
use super::status::LoadReport;
use super::tell::{MOST_LOGGED, event_of, tell_emptied};
use crate::database::{Database, DatabaseError, Failure, Look, Watcher};
use crate::settle::{Emptied, Hold};

/// Loads the trusted peers, one load at a time.
pub(super) struct TrustedLoader {
    database: Database,
    published: Arc<Published>,
    pub(super) flights: SingleFlight<TrustedKeeper, Result<LoadReport, DatabaseError>>,
}

/// State that is kept between two loads of the trusted peers.
pub(super) struct TrustedKeeper {
    watcher: Watcher,
    /// Digest of the current rows, to detect a change.
    digest: Option<u64>,
    /// When the last load ended, and how long it took.
    ended: Option<(Instant, Duration)>,
    /// Whether the table has just become empty.
    emptied: Emptied,
}

impl TrustedKeeper {
    fn new(database: Database) -> Self {
        Self {
            watcher: Watcher::of_trusted(database),
            digest: None,
            ended: None,
            emptied: Emptied::default(),
        }
    }

    fn is_due(&self, look: Look, options: BookOptions) -> bool {
        self.ended
            .is_none_or(|(ended, took)| ended.elapsed() >= options.trust(look, took))
    }
}

impl TrustedLoader {
    pub(super) fn new(database: Database, published: Arc<Published>) -> Self {
        Self {
            flights: SingleFlight::new(TrustedKeeper::new(database.clone())),
            database,
            published,
        }
    }

    pub(super) async fn reload(&self, ticket: u64) -> Result<LoadReport, DatabaseError> {
        let load = async |keeper: &mut TrustedKeeper| {
            // Later changes are found by the next check.
            match keeper.watcher.look().await {
                Ok(_) => self.load(keeper, None).await,
                Err(error) => Err(self.failed(error)),
            }
        };
        self.flights.answer(ticket, load).await
    }

    /// Loads the peers if they have changed, as this look at the database says, or one that is made now; returns how long that took.
    pub(super) async fn follow(
        &self,
        options: BookOptions,
        looked: Option<&Looked>,
    ) -> Result<Duration, DatabaseError> {
        let mut flight = self.flights.take().await;
        let keeper = &mut flight.state;
        let look = keeper.watcher.look_at(looked).await;
        let is_due = match look.map_err(|error| self.failed(error))? {
            Look::Changed => true,
            look @ (Look::Unknown | Look::Quiet) => keeper.is_due(look, options),
            Look::Same => false,
        };
        if !is_due {
            return Ok(Duration::ZERO);
        }
        let begun = Instant::now();
        self.load(keeper, Some(options.settle)).await?;
        Ok(begun.elapsed())
    }

    /// `settle` is the time for which a table that has become empty must stay so; `None` for a requested load.
    async fn load(
        &self,
        keeper: &mut TrustedKeeper,
        settle: Option<Duration>,
    ) -> Result<LoadReport, DatabaseError> {
        let begun = Instant::now();
        let loaded = match self.database.load_trusted().await {
            Ok(loaded) => Some(loaded),
            // The table is optional. If it was there and has disappeared, the previous peers stay.
            Err(DatabaseError::Database(Failure::NoTable { .. })) if keeper.digest.is_none() => {
                None
            }
            Err(error) => {
                keeper.watcher.forget();
                return Err(self.failed(error));
            }
        };
        let took = begun.elapsed();
        keeper.ended = Some((Instant::now(), took));
        self.published.status.lock().trusted.succeeded();
        let digest = loaded.as_ref().map(|loaded| loaded.digest);
        let current = self.published.current.load_full();
        let is_empty = loaded.as_ref().is_none_or(|loaded| loaded.table.is_empty());
        let is_emptied = is_empty && !current.trusted.table.is_empty();
        let is_as_it_was = digest == keeper.digest && current.trusted.generation > 0;
        let patience = settle.unwrap_or_default();
        match keeper.emptied.hold(is_emptied, patience, Instant::now()) {
            hold @ (Hold::Begins | Hold::Goes) => {
                keeper.watcher.forget();
                tell_emptied(hold, "trusted", patience);
                return Ok(LoadReport { snapshot: current });
            }
            Hold::Over => warn!(
                event = "table_empty",
                "table of trusted peers is empty: no peer is trusted"
            ),
            Hold::None if is_as_it_was && settle.is_some() => {
                return Ok(LoadReport { snapshot: current });
            }
            Hold::None => {}
        }
        keeper.digest = digest;
        let generation = current.trusted.generation + 1;
        let is_absent = loaded.is_none();
        let part = TrustedPart::new(loaded.unwrap_or_default(), generation, took);
        let part = Arc::new(TrustedPart { is_absent, ..part });
        let tells = !(is_absent && current.trusted.is_absent);
        let snapshot = self.published.replace(|old| Snapshot {
            trusted: Arc::clone(&part),
            ..old.clone()
        });
        if tells {
            tell(&part);
        }
        Ok(LoadReport { snapshot })
    }

    /// Counts a failure. Logs it once, and not again while it repeats.
    fn failed(&self, error: DatabaseError) -> DatabaseError {
        if self
            .published
            .status
            .lock()
            .trusted
            .failed(error.to_string())
        {
            let event = event_of(&error);
            warn!(event, %error, "trusted peers not loaded, the previous ones stay");
        }
        error
    }
}

fn tell(part: &TrustedPart) {
    if part.is_absent {
        info!(
            event = "trusted_table_missing",
            "no table of trusted peers: no peer is trusted"
        );
        return;
    }
    info!(
        event = "trusted_loaded",
        generation = part.generation,
        rows = part.table.len(),
        ignored = part.ignored,
        skipped = part.skipped,
        warned = part.warned,
        milliseconds = part.took.as_millis() as u64,
        "trusted peers loaded"
    );
    for error in part.errors.iter().take(MOST_LOGGED) {
        warn!(
            event = "row_skipped",
            "row of the trusted table skipped: {error}"
        );
    }
    if part.skipped > MOST_LOGGED as u64 {
        warn!(
            event = "row_skipped",
            "{} further rows of the trusted table skipped",
            part.skipped - MOST_LOGGED as u64
        );
    }
    for warning in part.warnings.iter().take(MOST_LOGGED) {
        warn!(
            event = "row_odd",
            "row of the trusted table used, with a warning: {warning}"
        );
    }
    if part.warned > MOST_LOGGED as u64 {
        warn!(
            event = "row_odd",
            "{} further rows of the trusted table used, with warnings",
            part.warned - MOST_LOGGED as u64
        );
    }
}
