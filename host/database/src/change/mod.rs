//! Detects changes of a table, without triggers and without reading the table.
//!
//! | storage | query | cost |
//! |---|---|---|
//! | SQLite | `PRAGMA data_version` on the connection that the audit is written over, and the identity of the file | negligible |
//! | InnoDB, MyISAM | `UPDATE_TIME` in `information_schema.TABLES`, also for a read-only user | one small query, independent of the size |
//! | Aria, MEMORY, partitioned tables | the same, but not every change is visible: the watcher also reads the table at intervals, and compares | grows with the table |
//! | PostgreSQL | the transaction snapshot, which proves that nothing was written, and the counters of the table; while others write, the watcher also reads the table at intervals, and compares | one small query; with other writers it grows with the table |
//! | Galera | the same as InnoDB on each node: a node notes the time of changes that it receives, too | the same |
//! | views | none: the watcher only reads and compares | grows with the table |
//!
//! One query asks for all tables that the process follows in a database ([`Follower`]), so that its cost does not depend on who follows what.
//!
//! After a change of the server, each table is read again: times and counters of two servers cannot be compared.
//!
//! InnoDB keeps the time of the last change in memory. A server that has been restarted since reports none until the next change: then the
//! table is not read either, except at intervals in case the server has evicted the metadata of a table in use.

mod look;
mod looks;
mod marks;
mod mysql;
mod postgres;

use std::fmt;
use std::sync::Arc;

use crate::connections::Connections;
use crate::{Failure, Name};
pub use look::{ChangeSource, Look};
pub use looks::{Follower, Looked};

use looks::Looks;
use marks::Mark;

/// Detects changes of a table.
pub struct TableWatch {
    connections: Connections,
    table: Name,
    looks: Arc<Looks>,
    /// The state seen last, and the server that showed it.
    seen: Option<(usize, Mark)>,
    /// The number of the last look that was compared.
    number: u64,
    source: Option<ChangeSource>,
}

impl TableWatch {
    /// Watches a table: from now on, each look at the database asks for it. Opens no connection yet.
    pub fn new(connections: Connections, table: Name) -> Self {
        let looks = Looks::of(&connections);
        looks.add(&table);
        Self {
            connections,
            table,
            looks,
            seen: None,
            number: 0,
            source: None,
        }
    }

    /// The method of change detection, as of the last successful look.
    pub fn source(&self) -> Option<&ChangeSource> {
        self.source.as_ref()
    }

    /// Looks now, and returns whether the table may have changed since the last look. The first look reports a change, and so does the first
    /// after a failed one.
    ///
    /// To be called before a load: a change during the load is reported by the next look.
    ///
    /// # Errors
    /// When the database cannot be reached or queried.
    pub async fn look(&mut self) -> Result<Look, Failure> {
        let looked = self.looks.ask(&self.connections).await;
        self.compare(&looked)
    }

    /// The same for a look that was made for all who follow. One that was made before the last look of this watch reports no change.
    ///
    /// # Errors
    /// When the look has failed.
    pub fn compare(&mut self, looked: &Looked) -> Result<Look, Failure> {
        let is_known = |seen: &Option<_>| match seen {
            Some(_) => Look::Same,
            None => Look::Changed,
        };
        if looked.number() <= self.number {
            return Ok(is_known(&self.seen));
        }
        self.number = looked.number();
        let before = self.seen.take();
        let marks = looked.marks()?;
        let Some(mark) = marks.tables.get(&self.table) else {
            self.seen = before;
            return Ok(is_known(&self.seen));
        };
        self.source = Some(mark.source());
        let look = match &before {
            // Times and counters of another server say nothing of those of this one.
            Some((other, _)) if *other != marks.server => Look::Changed,
            Some((_, before)) => mark.since(before),
            None => Look::Changed,
        };
        self.seen = Some((marks.server, mark.clone()));
        Ok(look)
    }

    /// Makes the next look report a change: the load after the last one failed.
    pub fn forget(&mut self) {
        self.seen = None;
    }
}

impl Drop for TableWatch {
    fn drop(&mut self) {
        self.looks.remove(&self.table);
    }
}

impl fmt::Debug for TableWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableWatch")
            .field("connections", &self.connections)
            .field("table", &self.table)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
