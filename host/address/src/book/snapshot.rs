//! One state of all tables and rules.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::parts::{RulesPart, TrustedPart};
use crate::database::Loaded;
use crate::row::{RowError, RowWarning};
use crate::table::Table;

/// Everything that policies can query: the address table, the trusted peers, and the rules. Immutable; a change of one part is a new
/// snapshot that shares the other parts, so that each request is evaluated against one consistent state. Fields without a part in their
/// description are about the address table.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The rows, arranged for lookups.
    pub table: Arc<Table>,
    /// Number of the load, from 1; 0 for the empty table before the first load.
    pub generation: u64,
    /// Time of the load.
    pub loaded_at: SystemTime,
    /// Duration of the load.
    pub took: Duration,
    /// Number of rows by kind.
    pub counts: Counts,
    /// The first hundred invalid rows, with reasons.
    pub errors: Vec<RowError>,
    /// The first hundred rows that are used with a warning.
    pub warnings: Vec<RowWarning>,
    /// The trusted peers.
    pub trusted: Arc<TrustedPart>,
    /// The allow and deny rules.
    pub rules: Arc<RulesPart>,
}

/// Number of rows by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows about one address.
    pub hosts: u64,
    /// Rows about networks.
    pub subnets: u64,
    /// Rows about names.
    pub domains: u64,
    /// Invalid rows, which were skipped.
    pub skipped: u64,
    /// Rows that are used with a warning.
    pub warned: u64,
}

impl Snapshot {
    /// Creates a snapshot without a database: for tests, and before the first load.
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
    /// Returns the number of rows that are used.
    pub fn used(&self) -> u64 {
        self.hosts + self.subnets + self.domains
    }
}
