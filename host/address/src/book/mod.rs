//! The table of the moment, and how it is renewed.

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

/// The longest pause between two tries to reach a database that is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Holds the snapshot that serves, and replaces it whole.
pub struct AddressBook {
    shared: Arc<Shared>,
    options: BookOptions,
}

/// How the book is kept.
#[derive(Clone, Copy, Debug)]
pub struct BookOptions {
    /// How often to look for changes.
    pub poll: Duration,
    /// Where the database does not say whether the table has changed, it is read anew and compared after 60 times what reading it
    /// takes, but at least this often.
    pub reread: Duration,
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
    /// How changes are noticed; none before the first look.
    pub changes_seen_by: Option<ChangeSource>,
    /// Loads that succeeded.
    pub loads: u64,
    /// Loads that failed.
    pub failures: u64,
    /// The last failure, if the last load failed.
    pub last_error: Option<DatabaseError>,
    /// How the trusted peers have fared.
    pub trusted: PartStatus,
    /// How the rules have fared.
    pub rules: PartStatus,
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

impl Default for BookOptions {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            reread: Duration::from_secs(60),
        }
    }
}

impl AddressBook {
    /// A book with an empty table, generation 0, and without rules.
    pub fn new(database: Database, options: BookOptions) -> Self {
        Self::with_rules(database, RuleFolder::default(), options)
    }

    /// The same with the allow and deny files of a folder. Nothing is loaded yet.
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

    /// The snapshot of the moment. Workers use a [`Reader`].
    pub fn current(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    /// A view for one worker.
    pub fn reader(&self) -> Reader {
        Reader {
            cache: Cache::new(Arc::clone(&self.shared.current)),
        }
    }

    /// How the book has fared.
    pub fn status(&self) -> Status {
        self.shared.status.lock().clone()
    }

    /// Loads the table anew and publishes it. Only one load runs at a time; who asks meanwhile waits for one that begins after
    /// he asked, and shares its result with all others who wait. A load goes on when he who asked for it goes away.
    ///
    /// To be called within a tokio runtime.
    ///
    /// # Errors
    /// The old table goes on serving.
    pub async fn reload(&self) -> Result<LoadReport, DatabaseError> {
        let ticket = self.shared.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let shared = Arc::clone(&self.shared);
        let reload = tokio::spawn(async move { shared.reload(ticket).await });
        reload
            .await
            .map_err(|error| DatabaseError::Build(error.to_string()))?
    }

    /// Loads the trusted peers anew and publishes them, in the way of [`reload`](Self::reload). A database without such a table
    /// trusts nobody, unless there was one before.
    ///
    /// # Errors
    /// The old peers go on being trusted.
    pub async fn reload_trusted(&self) -> Result<LoadReport, DatabaseError> {
        let ticket = self.shared.trusted.ask();
        let shared = Arc::clone(&self.shared);
        let reload = tokio::spawn(async move { shared.reload_trusted(ticket).await });
        reload
            .await
            .map_err(|error| DatabaseError::Build(error.to_string()))?
    }

    /// Reads the allow and deny files anew and publishes the rules, in the way of [`reload`](Self::reload).
    ///
    /// # Errors
    /// The old rules go on.
    pub async fn reload_rules(&self) -> Result<LoadReport, RulesError> {
        let ticket = self.shared.rules.ask();
        let shared = Arc::clone(&self.shared);
        let reload = tokio::spawn(async move { shared.reload_rules(ticket).await });
        reload.await.map_err(|error| RulesError {
            path: "the folder".to_owned(),
            cause: error.to_string(),
        })?
    }

    /// Looks for changes of both tables and of the rules and loads them, for ever. A database that is away is asked again and again; the log says
    /// so once, and once more when it is back.
    pub async fn watch(&self) {
        tokio::join!(
            self.watch_addresses(),
            self.watch_trusted(),
            self.watch_rules()
        );
    }

    async fn watch_addresses(&self) {
        let options = self.options;
        let poll = options.poll;
        let mut pause = poll;
        loop {
            let shared = Arc::clone(&self.shared);
            let follow = tokio::spawn(async move { shared.follow(options).await });
            pause = match follow.await {
                // A large table that changes all the time is read half of the time.
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
            // What goes wrong is in the log and in the status.
            let _told = tokio::spawn(async move { shared.follow_rules().await }).await;
            sleep(self.options.poll).await;
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
    /// The snapshot of the moment.
    #[inline]
    pub fn current(&mut self) -> &Arc<Snapshot> {
        self.cache.load()
    }
}

#[cfg(test)]
mod part_tests;
#[cfg(test)]
mod tests;
