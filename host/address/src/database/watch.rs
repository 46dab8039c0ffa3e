//! Detects changes of the rows, in their table or in the file that replaces it.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use portcullis_database::{ChangeSource, Look, Looked, TableWatch};

use super::{Database, DatabaseError};
use crate::settle::{FileState, SettleTimes, Settling, Step, Writers};

/// Checks whether a table has changed. [`AddressBook::watch`](crate::AddressBook::watch) has a watcher of its own.
pub struct Watcher {
    watched: Watched,
}

/// What a watcher checks.
enum Watched {
    Table(TableWatch),
    File(WatchedFile),
}

/// An address file. An incomplete file would be a table without some of the peers, so the file is read when it is complete.
struct WatchedFile {
    path: PathBuf,
    writers: Writers,
    settling: Settling<FileState>,
    seen: Option<FileState>,
    /// Whether the file is to be read again although it has not changed.
    is_due: bool,
    source: Option<ChangeSource>,
}

/// The content of an address file does not show whether it is complete.
const UNHURRIED: SettleTimes = SettleTimes {
    whole: Duration::ZERO,
    in_place: Duration::from_secs(2),
    nothing: Duration::from_secs(2),
};

impl Watcher {
    /// Creates a watcher of the address rows. Nothing is opened yet.
    pub fn new(database: Database) -> Self {
        let watched = match database.address_file() {
            Some(path) => Watched::File(WatchedFile {
                path: path.to_owned(),
                writers: Writers::new(None),
                settling: Settling::default(),
                seen: None,
                is_due: false,
                source: None,
            }),
            None => {
                let table = database.schema().address.table.clone();
                Watched::Table(TableWatch::new(database.connections().clone(), table))
            }
        };
        Self { watched }
    }

    /// Creates a watcher of the table of trusted peers.
    pub fn of_trusted(database: Database) -> Self {
        let table = database.schema().trusted.table.clone();
        let watch = TableWatch::new(database.connections().clone(), table);
        Self {
            watched: Watched::Table(watch),
        }
    }

    /// Returns how changes are detected, according to the last successful check.
    pub fn source(&self) -> Option<&ChangeSource> {
        match &self.watched {
            Watched::Table(table) => table.source(),
            Watched::File(file) => file.source.as_ref(),
        }
    }

    /// Whether the table may have changed since the last check. The first check finds a change, as does the first one after a failure.
    ///
    /// Must be called before a load, so that changes during the load are found by the next check.
    ///
    /// # Errors
    /// If the database is unreachable, or the query fails.
    pub async fn look(&mut self) -> Result<Look, DatabaseError> {
        match &mut self.watched {
            Watched::Table(table) => Ok(table.look().await?),
            Watched::File(file) => Ok(file.look()),
        }
    }

    /// The same with a look at the database that others share; `None` for a file.
    ///
    /// # Errors
    /// If the look has failed.
    pub(crate) async fn look_at(&mut self, looked: Option<&Looked>) -> Result<Look, DatabaseError> {
        match (&mut self.watched, looked) {
            (Watched::Table(table), Some(looked)) => Ok(table.compare(looked)?),
            (Watched::Table(_), None) | (Watched::File(_), _) => self.look().await,
        }
    }

    /// Has the next check find a change, because the last one was not loaded. A file must be complete nevertheless.
    pub(crate) fn forget(&mut self) {
        match &mut self.watched {
            Watched::Table(table) => table.forget(),
            Watched::File(file) => file.is_due = true,
        }
    }

    /// Accepts the current state of the file, complete or not, for a requested load.
    pub(crate) fn insist(&mut self) {
        if let Watched::File(file) = &mut self.watched {
            file.seen = None;
        }
    }
}

impl WatchedFile {
    fn look(&mut self) -> Look {
        let seen = self.seen;
        let state = self.state(seen);
        self.source = Some(ChangeSource::FileStamp);
        self.seen = Some(state);
        let is_due = std::mem::take(&mut self.is_due);
        match seen == Some(state) && !is_due {
            true => Look::Same,
            false => Look::Changed,
        }
    }

    /// Returns the state of the file that is to be used, given the one used so far.
    fn state(&mut self, seen: Option<FileState>) -> FileState {
        self.writers.follow([self.path.as_path()]);
        let (state, writer) = (FileState::of(&self.path), self.writers.state(&self.path));
        let Some(seen) = seen else {
            return state;
        };
        let now = Instant::now();
        let quiet = |state: &FileState| state.quiet(&seen, writer, &UNHURRIED);
        let step = self.settling.step(state, &seen, quiet, now);
        if let Some(waited) = self.settling.overdue(now) {
            tracing::warn!(
                event = "file_not_whole",
                file = %self.path.display(),
                seconds = waited.as_secs(),
                "address file is being written, not read until it is complete; the previous table stays"
            );
        }
        match step {
            Step::Take => state,
            Step::Same | Step::Wait(_) => seen,
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.watched {
            Watched::Table(table) => table.fmt(f),
            Watched::File(file) => f.debug_tuple("Watcher").field(&file.path).finish(),
        }
    }
}
