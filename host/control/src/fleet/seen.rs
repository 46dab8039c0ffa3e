//! What a host has learned from the table of hosts.

use std::collections::BTreeMap;

use portcullis_fleet::directory::{DirectoryError, HostRow, Standing, Twin, differing};

use super::twins::Twins;

/// The difference between the clocks of host and database above which an alert reports it, in milliseconds.
const CLOCK_TOLERANCE_MS: u64 = 5_000;

/// What a host has learned from the table of hosts.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Number of announcements.
    pub(crate) announced: u64,
    /// Number of announcements that failed.
    pub(crate) failed: u64,
    /// Why the last one failed; `None` if it did not.
    pub(crate) error: Option<DirectoryError>,
    /// Other processes with the same name.
    pub(crate) twins: Twins,
    /// The clock of the host minus that of the database, in milliseconds.
    pub(crate) clock_ahead_ms: i64,
    /// Number of hosts by what is known of them, at the last look at all rows; `None` before the first.
    pub(crate) hosts: Option<BTreeMap<Standing, u64>>,
    /// The seats whose generations differ among the hosts, at the last look.
    pub(crate) differing: Vec<String>,
}

impl Seen {
    /// Notes the rows of all hosts.
    pub(crate) fn note_hosts(&mut self, rows: &[HostRow]) {
        let mut hosts = BTreeMap::new();
        for row in rows {
            *hosts.entry(Standing::of(row)).or_default() += 1;
        }
        self.hosts = Some(hosts);
        self.differing = differing(rows);
    }

    /// The other process with the same name.
    pub(crate) fn twin(&self) -> Option<&Twin> {
        self.twins.current()
    }

    /// Whether the clocks of host and database differ by too much.
    pub(crate) fn has_wrong_clock(&self) -> bool {
        self.clock_ahead_ms.unsigned_abs() > CLOCK_TOLERANCE_MS
    }
}
