//! The table of the moment, and how it is renewed.

mod snapshot;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Cache};
use parking_lot::Mutex;
use tokio::time::sleep;
use tracing::{info, warn};

pub use snapshot::{Counts, Snapshot};

use crate::database::{Database, DatabaseError, Loaded, Watcher};

/// How many problem rows a load tells in the log; all of the first hundred are in the snapshot.
const MOST_LOGGED: usize = 20;

/// The longest pause between two tries to reach a database that is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Holds the snapshot that serves, and replaces it whole.
pub struct AddressBook {
    database: Database,
    poll: Duration,
    current: Arc<ArcSwap<Snapshot>>,
    /// Snapshots that a worker may still have. They are freed here and not by the worker that drops them last: freeing a
    /// million rows takes a while.
    retired: Mutex<Vec<Arc<Snapshot>>>,
    /// Reloads asked for so far. A load answers for all that were asked for when it began.
    asked: AtomicU64,
    loading: tokio::sync::Mutex<LastLoad>,
    status: Mutex<Status>,
}

/// How the book is kept.
#[derive(Clone, Copy, Debug)]
pub struct BookOptions {
    /// How often to look for changes.
    pub poll: Duration,
}

/// What a successful reload brought.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// What serves now.
    pub snapshot: Arc<Snapshot>,
}

/// How the book has fared.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Whether the database answers.
    pub database: DatabaseState,
    /// Loads that succeeded.
    pub loads: u64,
    /// Loads that failed.
    pub failures: u64,
    /// The last failure, if the last load failed.
    pub last_error: Option<DatabaseError>,
}

/// Whether the database answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DatabaseState {
    /// Nobody has asked yet.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down {
        /// Since when.
        since: SystemTime,
    },
}

/// A worker's view of the book: looking costs one atomic load while nothing changes.
pub struct Reader {
    cache: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
}

#[derive(Default)]
struct LastLoad {
    /// The last reload that the result answers for.
    answers: u64,
    result: Option<Result<LoadReport, DatabaseError>>,
}

impl AddressBook {
    /// A book with an empty table, generation 0.
    pub fn new(database: Database, options: BookOptions) -> Self {
        Self {
            database,
            poll: options.poll,
            current: Arc::new(ArcSwap::from_pointee(Snapshot::default())),
            retired: Mutex::new(Vec::new()),
            asked: AtomicU64::new(0),
            loading: tokio::sync::Mutex::new(LastLoad::default()),
            status: Mutex::new(Status::default()),
        }
    }

    /// The database behind it.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The snapshot of the moment. Workers use a [`Reader`].
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// A view for one worker.
    pub fn reader(&self) -> Reader {
        Reader {
            cache: Cache::new(Arc::clone(&self.current)),
        }
    }

    /// How the book has fared.
    pub fn status(&self) -> Status {
        self.status.lock().clone()
    }

    /// Loads the table anew and publishes it. Only one load runs at a time; who asks meanwhile waits for one that begins after
    /// he asked, and shares its result with all others who wait.
    ///
    /// # Errors
    /// The old table goes on serving.
    pub async fn reload(&self) -> Result<LoadReport, DatabaseError> {
        let ticket = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut last = self.loading.lock().await;
        if last.answers >= ticket
            && let Some(result) = &last.result
        {
            return result.clone();
        }
        last.answers = self.asked.load(Ordering::Relaxed);
        let result = self.load().await;
        last.result = Some(result.clone());
        result
    }

    /// Looks for changes of the table and loads them, for ever. A database that is away is asked again and again; the log says
    /// so once, and once more when it is back.
    pub async fn watch(&self) {
        let mut watcher = Watcher::new(self.database.clone());
        // The first look only notes what is there, if that is loaded already.
        let mut is_news = self.current().generation == 0;
        let mut pause = self.poll;
        loop {
            pause = match watcher.has_changed().await {
                Ok(changed) => {
                    self.came_back();
                    if changed && is_news && self.reload().await.is_err() {
                        watcher = Watcher::new(self.database.clone());
                    }
                    is_news = true;
                    self.poll
                }
                Err(error) => {
                    self.went_away(&error);
                    is_news = true;
                    (pause * 2).min(LONGEST_PAUSE.max(self.poll))
                }
            };
            self.collect();
            sleep(pause).await;
        }
    }

    /// Frees the old snapshots that no worker has any more.
    fn collect(&self) {
        let unused: Vec<_> = {
            let mut retired = self.retired.lock();
            retired
                .extract_if(.., |snapshot| Arc::strong_count(snapshot) == 1)
                .collect()
        };
        if !unused.is_empty() {
            // Freeing is work, too: not on a thread that others wait for.
            drop(tokio::task::spawn_blocking(move || drop(unused)));
        }
    }

    async fn load(&self) -> Result<LoadReport, DatabaseError> {
        let begun = Instant::now();
        match self.database.load().await {
            Ok(loaded) => Ok(self.publish(loaded, begun.elapsed())),
            Err(error) => {
                let mut status = self.status.lock();
                status.failures += 1;
                let is_new = status.last_error.as_ref() != Some(&error);
                status.last_error = Some(error.clone());
                drop(status);
                if is_new {
                    let generation = self.current().generation;
                    warn!(%error, generation, "The address table was not loaded; the old one goes on serving.");
                }
                Err(error)
            }
        }
    }

    fn publish(&self, loaded: Loaded, took: Duration) -> LoadReport {
        // The lock keeps generations and publications in the same order.
        let mut retired = self.retired.lock();
        let generation = self.current.load().generation + 1;
        let snapshot = Arc::new(Snapshot::new(loaded, generation, took));
        retired.push(self.current.swap(Arc::clone(&snapshot)));
        drop(retired);
        let mut status = self.status.lock();
        status.loads += 1;
        status.last_error = None;
        status.database = DatabaseState::Up;
        drop(status);
        tell(&snapshot);
        LoadReport { snapshot }
    }

    fn came_back(&self) {
        let mut status = self.status.lock();
        let was_down = matches!(status.database, DatabaseState::Down { .. });
        status.database = DatabaseState::Up;
        drop(status);
        if was_down {
            info!(database = %self.database.url(), "The database answers again.");
        }
    }

    fn went_away(&self, error: &DatabaseError) {
        let mut status = self.status.lock();
        if matches!(status.database, DatabaseState::Down { .. }) {
            return;
        }
        status.database = DatabaseState::Down {
            since: SystemTime::now(),
        };
        drop(status);
        warn!(%error, "The database does not answer; the address table stays as it is.");
    }
}

impl fmt::Debug for AddressBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressBook")
            .field("database", &self.database)
            .field("current", &self.current.load())
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// The snapshot of the moment.
    #[inline]
    pub fn current(&mut self) -> &Arc<Snapshot> {
        self.cache.load()
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
mod tests;
