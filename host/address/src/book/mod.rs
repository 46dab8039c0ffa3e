//! The address book: the current tables and rules, and how they are reloaded.

mod parts;
mod rules;
mod shared;
mod snapshot;
mod trusted;
mod turns;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Cache};
use tokio::time::sleep;

pub use parts::{PartStatus, RulesPart, TrustedPart};
pub use snapshot::{Counts, Snapshot};

use shared::Shared;

use crate::database::{ChangeSource, Database, DatabaseError};
use crate::rules::{RuleFolder, RulesError};

/// Longest pause between two attempts to reach an unreachable database.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Holds the current snapshot, and replaces it as a whole.
pub struct AddressBook {
    shared: Arc<Shared>,
    options: BookOptions,
}

/// How the book looks for changes.
#[derive(Clone, Copy, Debug)]
pub struct BookOptions {
    /// How often to look for changes.
    pub poll: Duration,
    /// Longest interval between two full reads of a table whose database does not report changes. The interval is 60 times the
    /// duration of a read, but never longer than this.
    pub reread: Duration,
    /// How long a table or a file of rules must stay empty, or the file missing, before that takes effect. An explicit reload takes
    /// effect at once.
    pub settle: Duration,
}

/// The result of a successful reload.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// The current snapshot.
    pub snapshot: Arc<Snapshot>,
}

/// State of the book.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Whether the database answers.
    pub database: DatabaseState,
    /// How changes are noticed; `None` before the first look.
    pub changes_seen_by: Option<ChangeSource>,
    /// Loads that succeeded.
    pub loads: u64,
    /// Loads that failed.
    pub failures: u64,
    /// The last failure, if the last load failed.
    pub last_error: Option<DatabaseError>,
    /// State of the trusted peers.
    pub trusted: PartStatus,
    /// State of the rules.
    pub rules: PartStatus,
}

/// Whether the database answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DatabaseState {
    /// Not asked yet.
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

impl Default for BookOptions {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            reread: Duration::from_secs(60),
            settle: Duration::from_secs(5),
        }
    }
}

impl AddressBook {
    /// A book with an empty table, generation 0, and without rules.
    pub fn new(database: Database, options: BookOptions) -> Self {
        Self::with_rules(database, RuleFolder::default(), options)
    }

    /// Adds the allow and deny files of a folder. Nothing is loaded yet.
    pub fn with_rules(database: Database, folder: RuleFolder, options: BookOptions) -> Self {
        Self {
            shared: Arc::new(Shared::new(database, folder)),
            options,
        }
    }

    /// The database behind it.
    pub fn database(&self) -> &Database {
        &self.shared.database
    }

    /// The current snapshot. Workers use a [`Reader`].
    pub fn current(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    /// A view for one worker.
    pub fn reader(&self) -> Reader {
        Reader {
            cache: Cache::new(Arc::clone(&self.shared.current)),
        }
    }

    /// State of the book.
    pub fn status(&self) -> Status {
        self.shared.status.lock().clone()
    }

    /// Loads the table again and publishes it. Only one load runs at a time; callers that arrive meanwhile wait for the next one and
    /// share its result. A load continues if its caller is dropped.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the table cannot be loaded; the previous one stays.
    pub async fn reload(&self) -> Result<LoadReport, DatabaseError> {
        let ticket = self.shared.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let shared = Arc::clone(&self.shared);
        let reload = tokio::spawn(async move { shared.reload(ticket).await });
        reload
            .await
            .map_err(|error| DatabaseError::Build(error.to_string()))?
    }

    /// Loads the trusted peers again and publishes them, like [`reload`](Self::reload). Without such a table in the database no peer
    /// is trusted, unless the table was there before.
    ///
    /// # Errors
    /// When the peers cannot be loaded; the previous ones stay.
    pub async fn reload_trusted(&self) -> Result<LoadReport, DatabaseError> {
        let ticket = self.shared.trusted.ask();
        let shared = Arc::clone(&self.shared);
        let reload = tokio::spawn(async move { shared.reload_trusted(ticket).await });
        reload
            .await
            .map_err(|error| DatabaseError::Build(error.to_string()))?
    }

    /// Reads the allow and deny files again and publishes the rules, like [`reload`](Self::reload).
    ///
    /// # Errors
    /// When the files cannot be read; the previous rules stay.
    pub async fn reload_rules(&self) -> Result<LoadReport, RulesError> {
        let ticket = self.shared.rules.ask();
        let shared = Arc::clone(&self.shared);
        let reload = tokio::spawn(async move { shared.reload_rules(ticket).await });
        reload.await.map_err(|error| RulesError {
            path: "the folder".to_owned(),
            cause: error.to_string(),
        })?
    }

    /// Looks for changes of both tables and of the rules and loads them, without end. An unreachable database is tried again and again;
    /// the log has one line when it goes away and one when it is back.
    pub async fn watch(&self) {
        tokio::join!(
            self.watch_addresses(),
            self.watch_trusted(),
            self.watch_rules()
        );
    }

    /// One look of the watch.
    #[cfg(test)]
    pub(crate) async fn follow(&self, options: BookOptions) -> Result<(), DatabaseError> {
        self.shared.follow(options).await.map(drop)
    }

    async fn watch_addresses(&self) {
        let options = self.options;
        let poll = options.poll;
        let mut pause = poll;
        loop {
            let shared = Arc::clone(&self.shared);
            let follow = tokio::spawn(async move { shared.follow(options).await });
            pause = match follow.await {
                // A large table that changes constantly is being read half of the time.
                Ok(Ok(took)) => poll.max(took),
                Ok(Err(_)) | Err(_) => (pause * 2).min(LONGEST_PAUSE.max(poll)),
            };
            self.shared.collect();
            sleep(pause).await;
        }
    }

    async fn watch_trusted(&self) {
        let options = self.options;
        let mut pause = options.poll;
        loop {
            let shared = Arc::clone(&self.shared);
            let follow = tokio::spawn(async move { shared.follow_trusted(options).await });
            pause = match follow.await {
                Ok(Ok(took)) => options.poll.max(took),
                Ok(Err(_)) | Err(_) => (pause * 2).min(LONGEST_PAUSE.max(options.poll)),
            };
            sleep(pause).await;
        }
    }

    async fn watch_rules(&self) {
        loop {
            let shared = Arc::clone(&self.shared);
            // Errors are in the log and in the status.
            let options = self.options;
            let follow = async move { shared.follow_rules(options).await };
            let _told = tokio::spawn(follow).await;
            sleep(options.poll).await;
        }
    }
}

impl fmt::Debug for AddressBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressBook")
            .field("database", &self.shared.database)
            .field("current", &self.shared.current.load())
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// The current snapshot.
    #[inline]
    pub fn current(&mut self) -> &Arc<Snapshot> {
        self.cache.load()
    }
}

#[cfg(test)]
mod part_tests;
#[cfg(test)]
mod tests;
