//! The address book: the current tables and rules, and how they are reloaded.

mod addresses;
mod options;
mod parts;
mod published;
mod rules;
mod snapshot;
mod status;
mod tell;
mod trusted;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use portcullis_database::Follower;
use tokio::task::JoinError;
use tokio::time::sleep;

pub use options::BookOptions;
pub use parts::{PartStatus, RulesPart, TrustedPart};
pub use snapshot::{Counts, Snapshot};
pub use status::{DatabaseState, LoadReport, Status};

use addresses::AddressLoader;
use published::Published;
use rules::RulesLoader;
use trusted::TrustedLoader;

use crate::database::{Database, DatabaseError};
use crate::rules::{RuleFolder, RulesError};

/// Holds the current snapshot, and replaces it as a whole.
pub struct AddressBook {
    published: Arc<Published>,
    addresses: Arc<AddressLoader>,
    trusted: Arc<TrustedLoader>,
    rules: Arc<RulesLoader>,
    options: BookOptions,
}

/// A worker's view of the book: looking costs one atomic load while nothing changes.
pub struct Reader {
    cache: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
}

impl AddressBook {
    /// A book with an empty table, generation 0, and without rules.
    pub fn new(database: Database, options: BookOptions) -> Self {
        Self::with_rules(database, RuleFolder::default(), options)
    }

    /// Adds the allow and deny files of a directory. Nothing is loaded yet.
    pub fn with_rules(database: Database, folder: RuleFolder, options: BookOptions) -> Self {
        let published = Arc::new(Published::default());
        let with = || Arc::clone(&published);
        Self {
            addresses: Arc::new(AddressLoader::new(database.clone(), with())),
            trusted: Arc::new(TrustedLoader::new(database, with())),
            rules: Arc::new(RulesLoader::new(folder, with())),
            published,
            options,
        }
    }

    /// The database behind it.
    pub fn database(&self) -> &Database {
        self.addresses.database()
    }

    /// The current snapshot. Workers use a [`Reader`].
    pub fn current(&self) -> Arc<Snapshot> {
        self.published.current.load_full()
    }

    /// A view for one worker.
    pub fn reader(&self) -> Reader {
        Reader {
            cache: Cache::new(Arc::clone(&self.published.current)),
        }
    }

    /// State of the book.
    pub fn status(&self) -> Status {
        self.published.status.lock().clone()
    }

    /// Loads the table again and publishes it. Only one load runs at a time; callers that arrive meanwhile wait for the next one and
    /// share its result. A load continues if its caller is dropped.
    ///
    /// A database that was restored from an older state, which has been told, is accepted.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the table cannot be loaded; the previous one stays.
    pub async fn reload(&self) -> Result<LoadReport, DatabaseError> {
        let _was_told = self.database().connections().accept_older();
        let ticket = self.addresses.flights.ask();
        let loader = Arc::clone(&self.addresses);
        let reload = tokio::spawn(async move { loader.reload(ticket).await });
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
        let ticket = self.trusted.flights.ask();
        let loader = Arc::clone(&self.trusted);
        let reload = tokio::spawn(async move { loader.reload(ticket).await });
        reload
            .await
            .map_err(|error| DatabaseError::Build(error.to_string()))?
    }

    /// Reads the allow and deny files again and publishes the rules, like [`reload`](Self::reload).
    ///
    /// # Errors
    /// When the files cannot be read; the previous rules stay.
    pub async fn reload_rules(&self) -> Result<LoadReport, RulesError> {
        let ticket = self.rules.flights.ask();
        let loader = Arc::clone(&self.rules);
        let reload = tokio::spawn(async move { loader.reload(ticket).await });
        reload.await.map_err(|error| RulesError {
            path: "the directory".to_owned(),
            cause: error.to_string(),
        })?
    }

    /// Checks both tables and the rules for changes and loads them, forever. Looks at the database are shared with all who follow its tables. An unreachable database is tried again; the log has one line
    /// when it becomes unreachable and one when it answers again.
    pub async fn watch(&self) {
        tokio::join!(
            self.watch_addresses(),
            self.watch_trusted(),
            self.watch_rules()
        );
    }

    /// One check of the watch.
    #[cfg(test)]
    pub(crate) async fn follow(&self, options: BookOptions) -> Result<(), DatabaseError> {
        self.addresses.follow(options, None).await.map(drop)
    }

    async fn watch_addresses(&self) {
        let options = self.options;
        let database = self.database();
        // The table has just been loaded.
        let mut follower = match database.address_file() {
            Some(_) => Follower::of_file(options.poll),
            None => Follower::of_table(database.connections().clone(), options.poll),
        };
        loop {
            let looked = follower.next().await;
            let loader = Arc::clone(&self.addresses);
            let follow = async move { loader.follow(options, looked.as_deref()).await };
            follower.done(took(tokio::spawn(follow).await));
            self.published.collect();
        }
    }

    async fn watch_trusted(&self) {
        let options = self.options;
        let connections = self.database().connections().clone();
        let mut follower = Follower::of_table(connections, options.poll);
        loop {
            let looked = follower.next().await;
            let loader = Arc::clone(&self.trusted);
            let follow = async move { loader.follow(options, looked.as_deref()).await };
            follower.done(took(tokio::spawn(follow).await));
        }
    }

    async fn watch_rules(&self) {
        loop {
            let loader = Arc::clone(&self.rules);
            // Errors are in the log and in the status.
            let options = self.options;
            let follow = async move { loader.follow(options).await };
            let _told = tokio::spawn(follow).await;
            sleep(options.poll).await;
        }
    }
}

/// How long a load took, zero if there was none; `None` if it failed.
fn took(followed: Result<Result<Duration, DatabaseError>, JoinError>) -> Option<Duration> {
    followed.ok().and_then(Result::ok)
}

impl fmt::Debug for AddressBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressBook")
            .field("database", self.database())
            .field("current", &self.published.current.load())
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
