//! Marks of the tables that hosts follow: what a poll compares, without reading the rows.

use std::time::{Duration, Instant};

use portcullis_database::{Column, Failure, Follower, Look, Looked, Name, TableWatch};

use super::{Store, StoredTenant};
use crate::error::StoreError;

/// How long a server is trusted that reports no change, but has no time of the last change since its restart.
const TRUSTED: Duration = Duration::from_secs(60);

/// How long the last sums are trusted where the database does not say whether a table has changed: PostgreSQL, while anybody writes. A look comes more
/// often, and a push should be live on all hosts within a second.
const UNSURE: Duration = Duration::from_millis(400);

static SEATS: Name = Name::known("portcullis_seat");
static TENANTS: Name = Name::known("portcullis_tenant");
static ROLLOUTS: Name = Name::known("portcullis_rollout");

/// The state of a table in a few numbers. Two states of one database with equal marks have the same rows, also if the database was replaced
/// by a backup and changed again since: the times of its rows are then others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Number of rows.
    pub rows: u64,
    /// Sum of the column `revision`, which grows with every change.
    pub revisions: u64,
    /// Sum of the column `changed_at`, in seconds since 1970.
    pub times: u64,
    /// Sum of the column `last` of seats, which grows with every push; 0 for tenants.
    pub pushes: u64,
}

impl Mark {
    /// The mark of the table with these tenants.
    pub fn of_tenants(tenants: &[StoredTenant]) -> Self {
        Self {
            rows: tenants.len() as u64,
            revisions: tenants.iter().map(|row| row.revision).sum(),
            times: tenants.iter().map(|row| row.changed_at).sum(),
            pushes: 0,
        }
    }
}

/// Follows the mark of a table.
#[derive(Debug)]
pub struct MarkWatch {
    store: Store,
    table: &'static Name,
    changes: TableWatch,
    /// The last mark, and when it was read; `None` if there is none, or the last look failed.
    last: Option<(Mark, Instant)>,
}

impl MarkWatch {
    fn new(store: &Store, table: &'static Name) -> Self {
        Self {
            store: store.clone(),
            table,
            changes: TableWatch::new(store.connections.clone(), table.clone()),
            last: None,
        }
    }

    /// Looks now, and returns the mark. The rows are only summed up if the table may have changed since the last call.
    ///
    /// # Errors
    /// As [`Store::mark`].
    pub async fn look(&mut self) -> Result<Mark, StoreError> {
        let look = self.changes.look().await;
        self.mark_after(look, Duration::ZERO).await
    }

    /// The same for a look that was made for all who follow tables of the database.
    ///
    /// # Errors
    /// As [`Store::mark`], and when the look has failed.
    pub async fn look_at(&mut self, looked: &Looked) -> Result<Mark, StoreError> {
        let look = self.changes.compare(looked);
        self.mark_after(look, UNSURE).await
    }

    /// The mark after this look. `unsure` is how long the last one is trusted if the database does not say whether it has changed.
    async fn mark_after(
        &mut self,
        look: Result<Look, Failure>,
        unsure: Duration,
    ) -> Result<Mark, StoreError> {
        let last = self.last.take();
        let look = look?;
        if let Some((mark, read)) = last {
            let is_same = match look {
                Look::Same => true,
                Look::Quiet => read.elapsed() < TRUSTED,
                Look::Unknown => read.elapsed() < unsure,
                Look::Changed => false,
            };
            if is_same {
                self.last = last;
                return Ok(mark);
            }
        }
        let mark = self.store.mark_of(self.table).await?;
        self.last = Some((mark, Instant::now()));
        Ok(mark)
    }
}

impl Store {
    /// Follows the mark of the seats.
    pub fn watch_seats(&self) -> MarkWatch {
        MarkWatch::new(self, &SEATS)
    }

    /// Follows the mark of the tenants.
    pub fn watch_tenants(&self) -> MarkWatch {
        MarkWatch::new(self, &TENANTS)
    }

    /// Follows changes of the roll-outs.
    pub fn watch_rollouts(&self) -> TableWatch {
        TableWatch::new(self.connections.clone(), ROLLOUTS.clone())
    }

    /// Waits for looks at the database, and says when to look again.
    pub fn follower(&self, interval: Duration) -> Follower {
        Follower::of_table(self.connections.clone(), interval)
    }

    /// The mark of the seats.
    ///
    /// # Errors
    /// When the database cannot be reached or has no such table.
    pub async fn mark(&self) -> Result<Mark, StoreError> {
        self.mark_of(&SEATS).await
    }

    /// The mark of the tenants.
    ///
    /// # Errors
    /// As [`Store::mark`].
    pub async fn tenants_mark(&self) -> Result<Mark, StoreError> {
        self.mark_of(&TENANTS).await
    }

    async fn mark_of(&self, table: &Name) -> Result<Mark, StoreError> {
        let pushes = if *table == SEATS { "`last`" } else { "0" };
        let dialect = self.connections.dialect();
        let sums = ["1", "`revision`", "`changed_at`", pushes]
            .map(|number| dialect.as_text(&format!("COALESCE(SUM({number}), 0)")));
        let query = format!("SELECT {} FROM {}", sums.join(", "), table.quoted());
        let mut mark = Mark::default();
        let mut link = self.open().await?;
        // A text query is one round trip.
        let read = link.each(&query, |columns: [Column<'_>; 4]| {
            let [rows, revisions, times, pushes] = columns.map(number);
            mark = Mark {
                rows,
                revisions,
                times,
                pushes,
            };
        });
        read.await?;
        link.release().await;
        Ok(mark)
    }
}

fn number(column: Column<'_>) -> u64 {
    match column {
        Column::Text(text) => text.parse().unwrap_or(0),
        Column::Null | Column::Bytes => 0,
    }
}
