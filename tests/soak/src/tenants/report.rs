//! The report of a soak with many tenants.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::process::{Held, table};
use crate::report::verdict;

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
    pub(crate) live_ms: Option<Live>,
    /// Resources of the host after every policy had answered once.
    pub(crate) started: Held,
    /// Resources of the idle host after the first round.
    pub(crate) after_first: Held,
    /// The same after the second round.
    pub(crate) after_second: Held,
    /// The largest values of any second.
    pub(crate) most: Held,
    /// Number of turns of each activity.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Datagrams that the kernel dropped before the host saw them.
    pub(crate) dropped_by_the_kernel: u64,
    /// Invariants that did not hold.
    pub(crate) broken: Vec<String>,
}

/// Time until changed files were live, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Live {
    /// Median.
    pub(crate) median: f64,
    /// Maximum.
    pub(crate) worst: f64,
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
        let _infallible = writeln!(
            text,
            "  {:>12}  datagrams dropped by the kernel before the host saw them",
            self.dropped_by_the_kernel
        );
        if let Some(Live { median, worst }) = self.live_ms {
            let _infallible = writeln!(
                text,
                "\n  a changed file is live after {median:.0} ms (median), {worst:.0} ms (worst)"
            );
        }
        text.push_str(&table(&[
            ("started", self.started),
            ("idle, after the 1st round", self.after_first),
            ("idle, after the 2nd round", self.after_second),
            ("at most", self.most),
        ]));
        text.push_str(&verdict(&self.broken));
        text
    }
}
