//! The parts of a snapshot other than the address table.

use std::time::{Duration, SystemTime};

use crate::database::LoadedTrusted;
use crate::row::{RowError, RowWarning};
use crate::rules::{LoadedRules, RuleError, Rules};
use crate::trusted::TrustedTable;

/// The trusted peers of one load.
#[derive(Debug)]
pub struct TrustedPart {
    /// The rows, arranged for lookups.
    pub table: TrustedTable,
    /// Number of the load, from 1; 0 before the first.
    pub generation: u64,
    /// Time of the load.
    pub loaded_at: SystemTime,
    /// Duration of the load.
    pub took: Duration,
    /// Whether the database has no such table.
    pub is_absent: bool,
    /// Disabled rows: their `proto` is `none`.
    pub ignored: u64,
    /// Number of invalid rows, which were skipped.
    pub skipped: u64,
    /// The first hundred of these, with reasons.
    pub errors: Vec<RowError>,
    /// Number of rows that are used with a warning.
    pub warned: u64,
    /// The first hundred of these.
    pub warnings: Vec<RowWarning>,
}

/// The allow and deny rules of one load.
#[derive(Debug)]
pub struct RulesPart {
    /// The rules.
    pub rules: Rules,
    /// Number of the load, from 1; 0 before the first.
    pub generation: u64,
    /// Time of the load.
    pub loaded_at: SystemTime,
    /// Duration of the load.
    pub took: Duration,
    /// Number of files.
    pub files: u64,
    /// Number of invalid lines, which were skipped.
    pub skipped: u64,
    /// The first hundred of these, with reasons.
    pub errors: Vec<RuleError>,
}

/// Results of all loads of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartStatus {
    /// Number of successful loads.
    pub loads: u64,
    /// Number of failed loads.
    pub failures: u64,
    /// The last failure, if the last load failed.
    pub last_error: Option<String>,
}

impl TrustedPart {
    /// Peers without a database, for tests.
    pub fn of(table: TrustedTable) -> Self {
        let loaded = LoadedTrusted {
            table,
            ..LoadedTrusted::default()
        };
        Self::new(loaded, 0, Duration::ZERO)
    }

    pub(super) fn new(loaded: LoadedTrusted, generation: u64, took: Duration) -> Self {
        let LoadedTrusted {
            table,
            ignored,
            skipped,
            errors,
            warned,
            warnings,
            digest: _,
        } = loaded;
        Self {
            table,
            generation,
            loaded_at: SystemTime::now(),
            took,
            is_absent: false,
            ignored,
            skipped,
            errors,
            warned,
            warnings,
        }
    }
}

impl RulesPart {
    /// Rules without a directory, for tests.
    pub fn of(loaded: LoadedRules) -> Self {
        Self::new(loaded, 0, Duration::ZERO)
    }

    pub(super) fn new(loaded: LoadedRules, generation: u64, took: Duration) -> Self {
        let LoadedRules {
            rules,
            files,
            skipped,
            errors,
            broken: _,
        } = loaded;
        Self {
            rules,
            generation,
            loaded_at: SystemTime::now(),
            took,
            files,
            skipped,
            errors,
        }
    }
}

impl PartStatus {
    pub(super) fn succeeded(&mut self) {
        self.loads += 1;
        self.last_error = None;
    }

    /// Counts a failure. Returns whether it differs from the previous one.
    pub(super) fn failed(&mut self, error: String) -> bool {
        self.failures += 1;
        let last = self.last_error.replace(error);
        last != self.last_error
    }
}

impl Default for TrustedPart {
    fn default() -> Self {
        Self::of(TrustedTable::default())
    }
}

impl Default for RulesPart {
    fn default() -> Self {
        Self::of(LoadedRules::default())
    }
}
