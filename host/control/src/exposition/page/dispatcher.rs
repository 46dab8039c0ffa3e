//! Metrics of the dispatcher.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::Ordering;

use portcullis_dataplane::shared::Shared;
use portcullis_dispatcher::{Admission, Member, Sets};
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;

use super::Page;
use crate::exposition::process::seconds;

/// Most sets and most destinations with metrics of their own: the first ones, by number of the set. The totals have all.
const MOST_NAMED: usize = 1_000;

impl Page<'_, '_> {
    pub(super) fn dispatcher(&mut self, shared: &Shared) -> fmt::Result {
        let dispatcher = &shared.dispatcher;
        let (sets, status) = (dispatcher.current(), dispatcher.status());
        let mut states = [
            ("active", Admission::Active, 0),
            ("trying", Admission::Trying, 0),
            ("inactive", Admission::Inactive, 0),
            ("disabled", Admission::Disabled, 0),
        ];
        for member in sets.members() {
            let admission = member.runtime.state().admission;
            for (_, state, count) in &mut states {
                *count += u64::from(*state == admission);
            }
        }
        let states = states.map(|(name, _, count)| (name, count));
        self.gauges(
            "dispatcher_destinations",
            "Destinations of the dispatcher by state; active and trying ones get requests",
            "state",
            states,
        )?;
        self.sets(&sets)?;
        let results = &shared.pings.results;
        let results = [
            ("good", &results.good),
            ("bad", &results.bad),
            ("silent", &results.silent),
            ("unreachable", &results.unreachable),
        ];
        let results = results.map(|(name, count)| (name, count.load(Ordering::Relaxed)));
        self.family(
            "dispatcher_pings",
            "Pings to destinations of the dispatcher by result",
            "result",
            results,
        )?;
        self.gauge(
            "dispatcher_calls",
            "Calls to destinations of the dispatcher that are counted now",
            dispatcher.calls().counted(),
        )?;
        let (calls, dropped) = dispatcher.calls_of_others().unwrap_or_default();
        self.gauge(
            "dispatcher_calls_of_other_hosts",
            "Calls to destinations of the dispatcher that other hosts count now",
            calls,
        )?;
        self.counter(
            "dispatcher_shared_items_dropped",
            "Loads of destinations and ends of calls that were not exchanged with other hosts because there was no room",
            dropped,
        )?;
        self.gauge(
            "dispatcher_skipped_rows",
            "Invalid rows of the dispatcher",
            sets.skipped,
        )?;
        let results = [("ok", sets.generation), ("failed", status.failures)];
        self.family(
            "dispatcher_reloads",
            "Loads of the sets of the dispatcher",
            "result",
            results,
        )?;
        self.gauge(
            "dispatcher_loaded_timestamp_seconds",
            "Load time of the sets of the dispatcher since the Unix epoch",
            seconds(sets.loaded_at),
        )
    }

    /// Metrics of single sets and destinations.
    fn sets(&mut self, sets: &Sets) -> fmt::Result {
        let mut open = self.encoder.encode_descriptor(
            "dispatcher_set_open_destinations",
            "Destinations of a set that get requests",
            None,
            MetricType::Gauge,
        )?;
        for set in sets.iter().take(MOST_NAMED) {
            let id = set.id().to_string();
            open.encode_family(&[("set", id.as_str())])?
                .encode_gauge(&(set.open() as u64))?;
        }
        self.of_members(
            "dispatcher_destination_open",
            "Whether a destination gets requests",
            MetricType::Gauge,
            sets,
            |member| {
                let is_open = |row: &Member| row.runtime.state().admission.is_open();
                f64::from(u8::from(sets.members_named(&member.name).any(is_open)))
            },
        )?;
        self.of_members(
            "dispatcher_latency_estimate_seconds",
            "Expected time of the next answer to a ping; 0 before the first",
            MetricType::Gauge,
            sets,
            |member| member.runtime.latencies().estimate / 1e3,
        )?;
        self.of_members(
            "dispatcher_unanswered_pings",
            "Pings that a destination did not answer",
            MetricType::Counter,
            sets,
            |member| member.runtime.latencies().timeouts.into(),
        )
    }

    fn of_members(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        sets: &Sets,
        value: impl Fn(&Member) -> f64,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, kind)?;
        // Rows with the same URI are one destination here.
        let mut seen = HashSet::new();
        let members = sets.members().filter(|member| seen.insert(&member.name));
        for member in members.take(MOST_NAMED) {
            let set = member.set.to_string();
            let labels = [("set", set.as_str()), ("destination", &*member.uri)];
            let mut metric = family.encode_family(&labels)?;
            if matches!(kind, MetricType::Counter) {
                metric.encode_counter::<NoLabelSet, _, u64>(&value(member), None)?;
            } else {
                metric.encode_gauge(&value(member))?;
            }
        }
        Ok(())
    }
}
