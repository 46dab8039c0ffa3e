//! Metrics of tenants and of the generations of their policies. The label values are the configured tenants and the generations that the
//! host retains: no request can create a new one.

use std::fmt;

use portcullis_dataplane::tenants::{Tenant, Tenants};
use portcullis_policy::{FailureKind, Generation, VerdictKind};
use portcullis_rollout::Registry;
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;

use super::{Page, Value};
use portcullis_metrics::{Label, Shed, TenantCounts};

/// The values of each metric of tenants, because the format groups values by metric. A field that is filled and not written is a warning.
#[derive(Default)]
struct Families<'l> {
    requests: Vec<Value<'l>>,
    failed: Vec<Value<'l>>,
    followed: Vec<Value<'l>>,
    postponed: Vec<Value<'l>>,
    refused_relays: Vec<Value<'l>>,
    shed: Vec<Value<'l>>,
    unasked_failures: Vec<Value<'l>>,
    verdicts: Vec<Value<'l>>,
    monitored: Vec<Value<'l>>,
    transactions: Vec<Value<'l>>,
}

impl<'l> Families<'l> {
    fn of(tenants: &'l Tenants) -> Self {
        let mut families = Self::default();
        for tenant in tenants.all() {
            let TenantCounts {
                requests,
                verdicts,
                failed,
                shed,
                monitored,
                followed,
                postponed,
                refused_relays,
                unasked_failures,
                transactions,
            } = TenantCounts::of(&tenant.counters);
            let name = ("tenant", &*tenant.name);
            for (family, n) in [
                (&mut families.requests, requests),
                (&mut families.failed, failed),
                (&mut families.followed, followed),
                (&mut families.postponed, postponed),
                (&mut families.refused_relays, refused_relays),
                (&mut families.transactions, transactions),
            ] {
                family.push(([name, ("", "")], n));
            }
            for &kind in Shed::ALL {
                let value = ([name, ("bound", kind.label())], shed.value(kind));
                families.shed.push(value);
                let value = (
                    [name, ("bound", kind.label())],
                    unasked_failures.value(kind),
                );
                families.unasked_failures.push(value);
            }
            for kind in VerdictKind::ALL {
                let labels = [name, ("verdict", kind.label())];
                families.verdicts.push((labels, verdicts.value(kind)));
                families.monitored.push((labels, monitored.value(kind)));
            }
        }
        families
    }
}

impl Page<'_, '_> {
    pub(super) fn tenants(&mut self, tenants: &Tenants) -> fmt::Result {
        let families = Families::of(tenants);
        self.series("tenant_requests", "Requests of a tenant", families.requests)?;
        self.series(
            "tenant_failed",
            "Requests of a tenant whose policy call failed or was not possible",
            families.failed,
        )?;
        self.series(
            "tenant_followed",
            "Requests of a tenant that followed their dialog without a policy call",
            families.followed,
        )?;
        self.series(
            "tenant_postponed",
            "Requests of a tenant with a slow policy that yielded to those of other tenants",
            families.postponed,
        )?;
        self.series(
            "tenant_refused_relays",
            "Requests of a tenant to destinations that it may not use",
            families.refused_relays,
        )?;
        self.series(
            "tenant_shed",
            "Requests of a tenant above a limit, rejected",
            families.shed,
        )?;
        self.values(
            MetricType::Gauge,
            "tenant_transactions",
            "Active transactions of a tenant",
            families.transactions,
        )?;
        self.series(
            "tenant_unasked_failures",
            "Requests of a tenant whose targets all failed, and whose policy was not asked because of a limit",
            families.unasked_failures,
        )?;
        self.series(
            "tenant_verdicts",
            "Decisions on the requests of a tenant; pass: its default verdict",
            families.verdicts,
        )?;
        self.series(
            "tenant_monitored",
            "Verdicts of policies in monitor mode",
            families.monitored,
        )?;
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
}

/// Returns the kinds of failure that have occurred.
fn failures_of(generation: &Generation) -> impl Iterator<Item = (FailureKind, u64)> + use<'_> {
    let kinds = FailureKind::ALL.into_iter();
    kinds
        .map(|kind| (kind, generation.stats.failures(kind)))
        .filter(|(_, n)| *n > 0)
}
