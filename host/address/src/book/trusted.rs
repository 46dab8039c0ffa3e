//! Loading and publishing the trusted peers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::shared::{MOST_LOGGED, Shared, trust};
use super::{BookOptions, LoadReport, Snapshot, TrustedPart};
use crate::database::{Database, DatabaseError, Look, Watcher};

/// What loads of the trusted peers leave for each other.
pub(super) struct TrustedKeeper {
    watcher: Watcher,
    /// The rows that serve, to tell whether others were read.
    digest: Option<u64>,
    /// When the last load ended, and how long it took.
    ended: Option<(Instant, Duration)>,
}

impl TrustedKeeper {
    pub(super) fn new(database: Database) -> Self {
        Self {
            watcher: Watcher::of_trusted(database),
            digest: None,
            ended: None,
        }
    }

    fn is_due(&self, look: Look, options: BookOptions) -> bool {
        self.ended
            .is_none_or(|(ended, took)| ended.elapsed() >= trust(look, took, options))
    }
}

impl Shared {
    pub(super) async fn reload_trusted(&self, ticket: u64) -> Result<LoadReport, DatabaseError> {
        let load = async |keeper: &mut TrustedKeeper| {
            // What changes from here on shows in the next look.
            match keeper.watcher.look().await {
                Ok(_) => self.load_trusted(keeper, true).await,
                Err(error) => Err(self.trusted_failed(error)),
            }
        };
        self.trusted.answer(ticket, load).await
    }

    /// Loads the peers if they have changed; tells how long that took.
    pub(super) async fn follow_trusted(
        &self,
        options: BookOptions,
    ) -> Result<Duration, DatabaseError> {
        let mut turn = self.trusted.take().await;
        let keeper = &mut turn.keeper;
        let look = keeper.watcher.look().await;
        let is_due = match look.map_err(|error| self.trusted_failed(error))? {
            Look::Changed => true,
            look @ (Look::Unknown | Look::Quiet) => keeper.is_due(look, options),
            Look::Same => false,
        };
        if !is_due {
            return Ok(Duration::ZERO);
        }
        let begun = Instant::now();
        self.load_trusted(keeper, false).await?;
        Ok(begun.elapsed())
    }

    async fn load_trusted(
        &self,
        keeper: &mut TrustedKeeper,
        was_asked: bool,
    ) -> Result<LoadReport, DatabaseError> {
        let begun = Instant::now();
        let loaded = match self.database.load_trusted().await {
            Ok(loaded) => Some(loaded),
            // Many a database does without this table. One that served and is gone leaves the peers as they were.
            Err(DatabaseError::NoTable { .. }) if keeper.digest.is_none() => None,
            Err(error) => {
                keeper.watcher.forget();
                return Err(self.trusted_failed(error));
            }
        };
        let took = begun.elapsed();
        keeper.ended = Some((Instant::now(), took));
        self.status.lock().trusted.succeeded();
        let digest = loaded.as_ref().map(|loaded| loaded.digest);
        let current = self.current.load_full();
        let is_as_it_was = digest == keeper.digest && current.trusted.generation > 0;
        if is_as_it_was && !was_asked {
            return Ok(LoadReport { snapshot: current });
        }
        keeper.digest = digest;
        let generation = current.trusted.generation + 1;
        let is_absent = loaded.is_none();
        let part = TrustedPart::new(loaded.unwrap_or_default(), generation, took);
        let part = Arc::new(TrustedPart { is_absent, ..part });
        let tells = !(is_absent && current.trusted.is_absent);
        let snapshot = self.replace(|old| Snapshot {
            trusted: Arc::clone(&part),
            ..old.clone()
        });
        if tells {
            tell(&part);
        }
        Ok(LoadReport { snapshot })
    }

    /// Counts a failure, and tells it once.
    fn trusted_failed(&self, error: DatabaseError) -> DatabaseError {
        if self.status.lock().trusted.failed(error.to_string()) {
            warn!(%error, "The trusted peers can't be loaded and stay as they are.");
        }
        error
    }
}

fn tell(part: &TrustedPart) {
    if part.is_absent {
        info!("There is no table of trusted peers: nobody is trusted.");
        return;
    }
    info!(
        generation = part.generation,
        rows = part.table.len(),
        ignored = part.ignored,
        skipped = part.skipped,
        warned = part.warned,
        milliseconds = part.took.as_millis() as u64,
        "The trusted peers are loaded."
    );
    for error in part.errors.iter().take(MOST_LOGGED) {
        warn!("Skipped a trusted peer: {error}.");
    }
    if part.skipped > MOST_LOGGED as u64 {
        warn!("… and {} more rows.", part.skipped - MOST_LOGGED as u64);
    }
    for warning in part.warnings.iter().take(MOST_LOGGED) {
        warn!("Odd, in a trusted peer: {warning}.");
    }
    if part.warned > MOST_LOGGED as u64 {
        warn!("… and {} more odd rows.", part.warned - MOST_LOGGED as u64);
    }
}
