//! One state of the table.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::parts::{RulesPart, TrustedPart};
use crate::database::Loaded;
use crate::row::{RowError, RowWarning};
use crate::table::Table;

/// Everything that policies ask: the table of addresses, the table of trusted peers, and the rules. Immutable; a change of one
/// part is a new snapshot that shares the others. So no request is judged by a mixture.
///
/// What is said beside a part is about the table of addresses.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The rows, arranged for look-ups.
    pub table: Arc<Table>,
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
    /// The trusted peers.
    pub trusted: Arc<TrustedPart>,
    /// The allow and deny rules.
    pub rules: Arc<RulesPart>,
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
        let (trusted, rules) = (Arc::default(), Arc::default());
        Self::new(loaded, 0, Duration::ZERO, trusted, rules)
    }

    pub(super) fn new(
        loaded: Loaded,
        generation: u64,
        took: Duration,
        trusted: Arc<TrustedPart>,
        rules: Arc<RulesPart>,
    ) -> Self {
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
            table: Arc::new(table),
            generation,
            loaded_at: SystemTime::now(),
            took,
            errors,
            warnings,
            trusted,
            rules,
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
