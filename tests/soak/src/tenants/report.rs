//! The report of a soak with many tenants.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::report::{dropped, verdict};
use crate::rounds::Rounds;
use crate::times::Times;

/// The whole report; its JSON form has the same fields.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Number of tenants.
    pub(crate) tenants: u32,
    /// From the start of the host to its end.
    pub(crate) seconds: u64,
    /// Time from the start of the host, without any compiled policies, until every policy had answered.
    pub(crate) start_seconds: f64,
    /// Requests per second of the counted traffic.
    pub(crate) rate: u64,
    /// Time from the change of a policy file to the first request that the new policy decided; `None` if no file was changed.
    pub(crate) live_ms: Option<Times>,
    /// Resources of the host; at its start, every policy has answered once.
    #[serde(flatten)]
    pub(crate) rounds: Rounds,
    /// Number of turns of each activity.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Datagrams that the kernel dropped before the host saw them.
    pub(crate) dropped_by_the_kernel: u64,
    /// Invariants that did not hold.
    pub(crate) broken: Vec<String>,
}

impl Report {
    /// The report as text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "\nSoak of {} s with {} tenants, ready after {:.1} s\n\n",
            self.seconds, self.tenants, self.start_seconds
        );
        for (what, count) in &self.counts {
            let _infallible = writeln!(text, "  {count:>12}  {what}");
        }
        text.push_str(&dropped(self.dropped_by_the_kernel));
        if let Some(Times { median, worst }) = self.live_ms {
            let _infallible = writeln!(
                text,
                "\n  a changed file is live after {median:.0} ms (median), {worst:.0} ms (worst)"
            );
        }
        text.push_str(&self.rounds.table());
        text.push_str(&verdict(&self.broken));
        text
    }
}
