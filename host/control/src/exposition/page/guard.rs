//! The metrics of the guard, and of overload control.

use std::fmt;
use std::time::Instant;

use portcullis_dataplane::shared::Shared;
use portcullis_guard::{FleetCounts, Guard, Kind, Reason};
use portcullis_metrics::Label;

use super::Page;

impl Page<'_, '_> {
    /// Sources that are held or banned, and how many have been.
    pub(super) fn guard(&mut self, shared: &Shared) -> fmt::Result {
        let workers = self.workers;
        let total = |kind: Kind, reason: Reason| {
            let each = workers.iter().map(|worker| match kind {
                Kind::Held => worker.guard.held.value(reason),
                Kind::Banned => worker.guard.banned.value(reason),
            });
            each.sum::<u64>()
        };
        let commanded = shared.guard.as_ref().map_or(0, Guard::commanded);
        let kinds = [Kind::Held, Kind::Banned];
        let barred = kinds.into_iter().flat_map(|kind| {
            Reason::ALL.into_iter().map(move |reason| {
                let labels = [("state", kind.as_str()), ("reason", reason.label())];
                let by_command = match (kind, reason) == (Kind::Banned, Reason::Operator) {
                    true => commanded,
                    false => 0,
                };
                (labels, total(kind, reason) + by_command)
            })
        });
        self.series(
            "guard_sources_barred",
            "Sources that were held or banned, by reason",
            barred,
        )?;
        let now = shared.guard.as_ref();
        let now = now.map_or_else(Vec::new, |guard| guard.barred(Instant::now()));
        let count = |kind| now.iter().filter(|barred| barred.kind == kind).count() as u64;
        self.gauge(
            "guard_held_sources",
            "Sources that are held",
            count(Kind::Held),
        )?;
        self.gauge(
            "guard_banned_sources",
            "Sources that are banned",
            count(Kind::Banned),
        )?;
        let shared_bans = shared.guard.as_ref().and_then(Guard::fleet_counts);
        let FleetCounts {
            banned,
            released,
            exempt,
            no_room,
            invalid,
        } = shared_bans.unwrap_or_default();
        self.family(
            "guard_shared_bans",
            "Bans and releases of other hosts by what has become of them",
            "result",
            [
                ("banned", banned),
                ("released", released),
                ("exempt", exempt),
                ("no_room", no_room),
                ("invalid", invalid),
            ],
        )?;
        self.gauge(
            "overload_loss",
            "Percentage of their requests that clients are asked to keep back because this host is overloaded (RFC 7339)",
            shared.proxy.asked_loss().into(),
        )?;
        self.gauge(
            "overload_rate",
            "Most requests per second of each client that is asked by rate because this host is overloaded (RFC 7415)",
            shared.proxy.asked_rate().into(),
        )?;
        let refused = self.sum(|w| &w.refused_for_load);
        self.counter(
            "overload_refused_requests",
            "Requests answered 503 because the host was overloaded and their sender did not support overload control",
            refused,
        )?;
        self.gauge(
            "overloaded_next_hops",
            "Addresses of next hops that ask for fewer requests (RFC 7339)",
            shared.next_hop_load.asking(Instant::now()) as u64,
        )
    }
}
