//! Metrics of the dispatcher.

use std::fmt;

use portcullis_dataplane::shared::Shared;
use portcullis_dispatcher::Admission;

use super::{Page, seconds};

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
        self.gauge(
            "dispatcher_calls",
            "Calls to destinations of the dispatcher that are counted now",
            dispatcher.calls().counted(),
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
}
