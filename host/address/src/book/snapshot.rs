//! One state of the table.

use std::time::{Duration, SystemTime};

use crate::database::Loaded;
use crate::row::{RowError, RowWarning};
use crate::table::Table;

/// The table as one load found it. Immutable; a change is a new one.
#[derive(Debug)]
pub struct Snapshot {
    /// The rows, arranged for look-ups.
    pub table: Table,
    /// Counts up from 1; 0 for the empty table before the first load.
    pub generation: u64,
    /// When it was loaded.
    pub loaded_at: SystemTime,
    /// How long loading took.
    pub took: Duration,
    /// How many rows of which kind.
    pub counts: Counts,
    /// The first hundred rows that were left out, and why.
    pub errors: Vec<RowError>,
    /// The first hundred rows that are in, but probably mean something else than they should.
    pub warnings: Vec<RowWarning>,
}

/// How many rows of which kind a load found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows about one address.
    pub hosts: u64,
    /// Rows about networks.
    pub subnets: u64,
    /// Rows about names.
    pub domains: u64,
    /// Rows that were left out.
    pub skipped: u64,
    /// Rows that are in with a warning.
    pub warned: u64,
}

impl Snapshot {
    /// A table without a database, for tests and for the time before the first load.
    pub fn of(table: Table) -> Self {
        let loaded = Loaded {
            table,
            ..Loaded::default()
        };
        Self::new(loaded, 0, Duration::ZERO)
    }

    pub(super) fn new(loaded: Loaded, generation: u64, took: Duration) -> Self {
        let Loaded {
            table,
            skipped,
            errors,
            warned,
            warnings,
            digest: _,
        } = loaded;
        Self {
            counts: Counts {
                hosts: table.host_count() as u64,
                subnets: table.subnet_count() as u64,
                domains: table.domain_count() as u64,
                skipped,
                warned,
            },
            table,
            generation,
            loaded_at: SystemTime::now(),
            took,
            errors,
            warnings,
        }
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::of(Table::default())
    }
}

impl Counts {
    /// Rows that are in.
    pub fn used(&self) -> u64 {
        self.hosts + self.subnets + self.domains
    }
}
