//! The parts of a snapshot beside the table of addresses.

use std::time::{Duration, SystemTime};

use crate::database::LoadedTrusted;
use crate::row::{RowError, RowWarning};
use crate::rules::{LoadedRules, RuleError, Rules};
use crate::trusted::TrustedTable;

/// The trusted peers as one load found them.
#[derive(Debug)]
pub struct TrustedPart {
    /// The rows, arranged for look-ups.
    pub table: TrustedTable,
    /// Counts up from 1; 0 before the first load.
    pub generation: u64,
    /// When it was loaded.
    pub loaded_at: SystemTime,
    /// How long loading took.
    pub took: Duration,
    /// Whether the database has no such table.
    pub is_absent: bool,
    /// Rows that rest: their `proto` is `none`.
    pub ignored: u64,
    /// Rows that were left out.
    pub skipped: u64,
    /// The first hundred of these, and why.
    pub errors: Vec<RowError>,
    /// Rows that are in with a warning.
    pub warned: u64,
    /// The first hundred of these.
    pub warnings: Vec<RowWarning>,
}

/// The allow and deny rules as one load found them.
#[derive(Debug)]
pub struct RulesPart {
    /// The rules.
    pub rules: Rules,
    /// Counts up from 1; 0 before the first load.
    pub generation: u64,
    /// When they were loaded.
    pub loaded_at: SystemTime,
    /// How long loading took.
    pub took: Duration,
    /// Files that were read.
    pub files: u64,
    /// Lines that were left out.
    pub skipped: u64,
    /// The first hundred of these, and why.
    pub errors: Vec<RuleError>,
}

/// How a part has fared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartStatus {
    /// Loads that succeeded.
    pub loads: u64,
    /// Loads that failed.
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
    /// Rules without a folder, for tests.
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

    /// Counts a failure; whether it is another one than the last.
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
