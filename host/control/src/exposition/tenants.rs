//! Metrics of tenants and of the generations of their policies. The label values are the configured tenants and the generations that the
//! host retains: no request can create a new one.

use std::fmt;

use portcullis_dataplane::tenants::{Tenant, Tenants};
use portcullis_policy::{FailureKind, Generation, VerdictKind};
use portcullis_rollout::Registry;
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;

use super::Page;
use portcullis_metrics::{Label, Shed, TenantCounters};

impl Page<'_, '_> {
    pub(super) fn tenants(&mut self, tenants: &Tenants) -> fmt::Result {
        self.requests_of(tenants)?;
        self.verdicts_of(tenants)?;
        let scope = |pick: fn(&Tenant) -> u64| {
            tenants
                .all()
                .map(move |tenant| ([("tenant", &*tenant.name), ("", "")], pick(tenant)))
        };
        self.series(
            "tenant_crossings",
            "Queries and changes of a tenant's policy outside its scope",
            scope(|tenant| tenant.seat.scope.crossings()),
        )?;
        self.series(
            "tenant_dropped_log_lines",
            "Log lines of a tenant's policy above its rate",
            scope(|tenant| tenant.seat.scope.dropped_lines()),
        )
    }

    fn requests_of(&mut self, tenants: &Tenants) -> fmt::Result {
        let of = |pick: fn(&TenantCounters) -> u64| {
            tenants.all().map(move |tenant| {
                let n = tenant.counters.iter().map(pick).sum();
                ([("tenant", &*tenant.name), ("", "")], n)
            })
        };
        self.series(
            "tenant_requests",
            "Requests of a tenant",
            of(|c| c.requests.value()),
        )?;
        self.series(
            "tenant_failed",
            "Requests of a tenant whose policy call failed or was not possible",
            of(|c| c.failed.value()),
        )?;
        self.series(
            "tenant_followed",
            "Requests of a tenant that followed their dialog without a policy call",
            of(|c| c.followed.value()),
        )?;
        self.series(
            "tenant_postponed",
            "Requests of a tenant with a slow policy that yielded to those of other tenants",
            of(|c| c.postponed.value()),
        )?;
        self.series(
            "tenant_refused_relays",
            "Requests of a tenant to destinations that it may not use",
            of(|c| c.refused_relays.value()),
        )?;
        let shed = tenants.all().flat_map(|tenant| {
            Shed::ALL.iter().map(move |&kind| {
                let n = tenant.counters.iter().map(|c| c.shed.value(kind)).sum();
                ([("tenant", &*tenant.name), ("bound", kind.label())], n)
            })
        });
        self.series(
            "tenant_shed",
            "Requests of a tenant above a limit, rejected without a policy call",
            shed,
        )
    }

    fn verdicts_of(&mut self, tenants: &Tenants) -> fmt::Result {
        let by_verdict = |pick: fn(&TenantCounters, VerdictKind) -> u64| {
            tenants.all().flat_map(move |tenant| {
                VerdictKind::ALL.into_iter().map(move |kind| {
                    let n = tenant.counters.iter().map(|c| pick(c, kind)).sum();
                    ([("tenant", &*tenant.name), ("verdict", kind.label())], n)
                })
            })
        };
        self.series(
            "tenant_verdicts",
            "Decisions on the requests of a tenant; pass: its default verdict",
            by_verdict(|c, kind| c.verdicts.value(kind)),
        )?;
        self.series(
            "tenant_monitored",
            "Verdicts of policies in monitor mode",
            by_verdict(|c, kind| c.monitored.value(kind)),
        )
    }

    pub(super) fn seats(&mut self, registry: &Registry) -> fmt::Result {
        let mut alerts = Vec::new();
        let mut calls = Vec::new();
        let mut failures = Vec::new();
        for files in registry.all_files() {
            let seat = files.seat();
            alerts.push((seat.name.to_string(), u64::from(seat.alert().is_some())));
            for number in seat.slot.numbers() {
                let Some(generation) = seat.slot.generation(number) else {
                    continue;
                };
                let labels = (seat.name.to_string(), number.to_string());
                let failed = failures_of(&generation);
                failures.extend(failed.map(|(kind, n)| (labels.clone(), kind, n)));
                calls.push((labels, generation.stats.calls()));
            }
        }
        let mut family = self.encoder.encode_descriptor(
            "policy_alert",
            "1 while the policy of a seat is out of service",
            None,
            MetricType::Gauge,
        )?;
        for (seat, n) in &alerts {
            family
                .encode_family(&[("seat", seat.as_str())])?
                .encode_gauge(n)?;
        }
        let calls = calls.iter().map(|((seat, number), n)| {
            (
                [("seat", seat.as_str()), ("generation", number.as_str())],
                *n,
            )
        });
        self.series("generation_calls", "Calls of a generation", calls)?;
        let mut family = self.encoder.encode_descriptor(
            "generation_failures",
            "Failed calls of a generation",
            None,
            MetricType::Counter,
        )?;
        for ((seat, number), kind, n) in &failures {
            let labels = [
                ("seat", seat.as_str()),
                ("generation", number.as_str()),
                ("kind", kind.as_str()),
            ];
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(n, None)?;
        }
        Ok(())
    }

    /// Writes counters with up to two labels; a label without a name is omitted.
    fn series<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'l str, &'l str); 2], u64)>,
    ) -> fmt::Result {
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, n) in values {
            let used = labels.iter().filter(|(name, _)| !name.is_empty());
            let used: Vec<_> = used.copied().collect();
            family
                .encode_family(&used)?
                .encode_counter::<NoLabelSet, _, u64>(&n, None)?;
        }
        Ok(())
    }
}

/// Returns the kinds of failure that have occurred.
fn failures_of(generation: &Generation) -> impl Iterator<Item = (FailureKind, u64)> + use<'_> {
    let kinds = FailureKind::ALL.into_iter();
    kinds
        .map(|kind| (kind, generation.stats.failures(kind)))
        .filter(|(_, n)| *n > 0)
}
