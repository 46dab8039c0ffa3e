//! Metrics of the pings that keep flows of clients open.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_dataplane::flow_pings::FlowPings;
use portcullis_dataplane::shared::Shared;

use super::Page;

impl Page<'_, '_> {
    pub(super) fn flow_pings(&mut self, shared: &Shared) -> fmt::Result {
        let pings = shared.flow_pings.as_ref();
        let value = |of: fn(&FlowPings) -> &AtomicU64| {
            pings.map_or(0, |pings| of(pings).load(Ordering::Relaxed))
        };
        self.family(
            "flow_pings",
            "Pings to clients over UDP by result",
            "result",
            [
                ("answered", value(|pings| &pings.results.answered)),
                ("silent", value(|pings| &pings.results.silent)),
                ("unreachable", value(|pings| &pings.results.unreachable)),
                ("kept_back", value(|pings| &pings.results.kept_back)),
            ],
        )?;
        self.gauge(
            "pinged_flows",
            "Flows of clients that are kept open with pings now",
            value(|pings| &pings.flows),
        )?;
        self.family(
            "unpinged_registrations",
            "Registrations whose flow is not kept open with pings, by reason",
            "reason",
            [
                ("full", value(|pings| &pings.refused)),
                ("events_lost", value(|pings| &pings.lost)),
            ],
        )
    }
}
