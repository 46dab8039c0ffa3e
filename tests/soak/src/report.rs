//! The report of a soak.

use std::collections::BTreeMap;
use std::fmt::Write;

use portcullis_load::Latency;
use portcullis_testkit::host::Host;
use serde::Serialize;

use crate::honest::Traffic;
use crate::process::{Held, table};

/// The whole report; its JSON form has the same fields.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// From the start of the host to its end.
    pub(crate) seconds: u64,
    /// Requests per second of the counted traffic.
    pub(crate) rate: u64,
    /// Honest traffic without other activities.
    pub(crate) quiet: Honest,
    /// Honest traffic during all other activities, first half.
    pub(crate) first: Honest,
    /// The same, second half.
    pub(crate) second: Honest,
    /// Resources of the idle host after the first half.
    pub(crate) after_first: Held,
    /// The same after the second half.
    pub(crate) after_second: Held,
    /// The largest values of any second.
    pub(crate) most: Held,
    /// Number of turns of each activity.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Failed calls of policies, nearly all of hostile tenants.
    pub(crate) policy_failures: u64,
    /// Whether a disk could be mounted and filled.
    pub(crate) disk: bool,
    /// Datagrams that the kernel dropped before the host saw them.
    pub(crate) dropped_by_the_kernel: u64,
    /// Invariants that did not hold.
    pub(crate) broken: Vec<String>,
}

/// Latencies of honest requests in one phase, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Honest {
    /// Counted traffic: the median of the 99th percentiles of its pieces.
    pub(crate) traffic_p99_ms: f64,
    /// Counted traffic: the largest 99th percentile of a piece.
    pub(crate) traffic_worst_p99_ms: f64,
    /// Requests of tenants, and calls: median.
    pub(crate) p50_ms: f64,
    /// 99th percentile.
    pub(crate) p99_ms: f64,
    /// Maximum.
    pub(crate) max_ms: f64,
}

impl Honest {
    pub(crate) fn new(traffic: &Traffic, latency: Latency) -> Self {
        let mut pieces = traffic.p99_ms.clone();
        pieces.sort_by(f64::total_cmp);
        Self {
            traffic_p99_ms: pieces.get(pieces.len() / 2).copied().unwrap_or_default(),
            traffic_worst_p99_ms: pieces.last().copied().unwrap_or_default(),
            p50_ms: latency.p50_us / 1000.0,
            p99_ms: latency.p99_us / 1000.0,
            max_ms: latency.max_us / 1000.0,
        }
    }
}

impl Report {
    /// The report as text.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("\nSoak of {} s\n\n", self.seconds);
        for (what, count) in &self.counts {
            let _infallible = writeln!(text, "  {count:>12}  {what}");
        }
        let _infallible = writeln!(
            text,
            "  {:>12}  failed calls of policies",
            self.policy_failures
        );
        text.push_str(&dropped(self.dropped_by_the_kernel));
        if !self.disk {
            text.push_str("\n  No disk was filled: mounting one takes root.\n");
        }
        text.push_str(
            "\n  honest requests, ms       counted: p99  worst p99   tenants and calls: p50     p99     max\n",
        );
        for (name, honest) in [
            ("alone", self.quiet),
            ("beside it all, 1st half", self.first),
            ("beside it all, 2nd half", self.second),
        ] {
            let _infallible = writeln!(
                text,
                "  {name:<25}{:>14.2}{:>11.2}{:>24.2}{:>8.2}{:>8.2}",
                honest.traffic_p99_ms,
                honest.traffic_worst_p99_ms,
                honest.p50_ms,
                honest.p99_ms,
                honest.max_ms
            );
        }
        text.push_str(&table(&[
            ("idle, after the 1st half", self.after_first),
            ("idle, after the 2nd half", self.after_second),
            ("at most", self.most),
        ]));
        text.push_str(&verdict(&self.broken));
        text
    }
}

/// The line of a report about datagrams that no host could answer.
pub(crate) fn dropped(by_the_kernel: u64) -> String {
    format!("  {by_the_kernel:>12}  datagrams dropped by the kernel before the host saw them\n")
}

/// Shows the log of a host that has broken an invariant.
pub(crate) fn explain(host: &Host, broken: &[String]) {
    if !broken.is_empty() {
        eprintln!("The host's log:\n{}", host.log());
    }
}

/// The end of a report: the invariants that were broken.
pub(crate) fn verdict(broken: &[String]) -> String {
    if broken.is_empty() {
        return "\nAll invariants held.\n".to_owned();
    }
    let mut text = format!("\nBroken invariants: {}\n", broken.len());
    for one in broken {
        let _infallible = writeln!(text, "  {one}");
    }
    text
}
