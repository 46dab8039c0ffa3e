//! Noticing that the rows have changed, in their table or in the file in its place.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use portcullis_database::{ChangeSource, Look, TableWatch};

use super::{Database, DatabaseError};
use crate::settle::{FileState, Patience, Settling, Step, Writers};

/// Looks whether a table has changed. [`AddressBook::watch`](crate::AddressBook::watch) has one, and looks by itself.
pub struct Watcher {
    watched: Watched,
}

/// What a watcher watches.
enum Watched {
    Table(TableWatch),
    File(WatchedFile),
}

/// An address file. Half of one is a table without the other half of the peers, so it is read when it is whole.
struct WatchedFile {
    path: PathBuf,
    writers: Writers,
    settling: Settling<FileState>,
    seen: Option<FileState>,
    /// The file is to be read again although it has not changed.
    is_due: bool,
    source: Option<ChangeSource>,
}

/// There is nothing in an address file that says whether it is whole.
const UNHURRIED: Patience = Patience {
    whole: Duration::ZERO,
    in_place: Duration::from_secs(2),
    nothing: Duration::from_secs(2),
};

impl Watcher {
    /// Watches where the addresses come from. Nothing is opened yet.
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

    /// Watches the table of trusted peers.
    pub fn of_trusted(database: Database) -> Self {
        let table = database.schema().trusted.table.clone();
        let watch = TableWatch::new(database.connections().clone(), table);
        Self {
            watched: Watched::Table(watch),
        }
    }

    /// How changes are noticed, as the last look that succeeded found it.
    pub fn source(&self) -> Option<&ChangeSource> {
        match &self.watched {
            Watched::Table(table) => table.source(),
            Watched::File(file) => file.source.as_ref(),
        }
    }

    /// Whether the table may have changed since the last look. The first look finds a change, as does the first after one
    /// that failed.
    ///
    /// To be asked before a load: what changes while the load runs shows in the next look.
    ///
    /// # Errors
    /// When the database can't be reached or asked.
    pub async fn look(&mut self) -> Result<Look, DatabaseError> {
        match &mut self.watched {
            Watched::Table(table) => Ok(table.look().await?),
            Watched::File(file) => Ok(file.look()),
        }
    }

    /// The next look finds a change: what the last one found was not loaded. A file has to be whole all the same.
    pub(crate) fn forget(&mut self) {
        match &mut self.watched {
            Watched::Table(table) => table.forget(),
            Watched::File(file) => file.is_due = true,
        }
    }

    /// What the file is now counts, whole or not: an operator wants it read.
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

    /// What counts as the state of the file, where this one did until now.
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
                "address file is being written, not read until that ends; the previous table stays"
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
