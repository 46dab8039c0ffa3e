//! The page that a scrape gets: each group of metrics has a file.

mod audit;
mod dispatcher;
mod exchange;
mod fleet;
mod flow_pings;
mod guard;
mod host;
mod messages;
mod peers;
mod policy;
mod rollouts;
mod tables;
mod tenants;
mod tls;
mod transactions;

use std::fmt;

use portcullis_dataplane::shared::Shared;
use portcullis_export::Exports;
use portcullis_metrics::{Counter, Label, Scale, TimeCounts, Wire, WireCounters, WorkerCounters};
use portcullis_rollout::Registry;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::audit::Audit;
use crate::fleet::Fleet;

/// The page that is being written.
pub(super) struct Page<'e, 'w> {
    encoder: DescriptorEncoder<'e>,
    workers: &'w [WorkerCounters],
}

/// One value of a metric: up to two labels, of which one without a name is omitted, and the number.
type Value<'l> = ([(&'l str, &'l str); 2], u64);

impl<'e, 'w> Page<'e, 'w> {
    pub(super) fn new(encoder: DescriptorEncoder<'e>, workers: &'w [WorkerCounters]) -> Self {
        Self { encoder, workers }
    }
}

impl Page<'_, '_> {
    /// Writes all metrics of the host.
    pub(super) fn write(
        mut self,
        shared: &Shared,
        tenants: &Registry,
        audit: &Audit,
        fleet: &Fleet,
        exports: &Exports,
        lost_log_lines: u64,
    ) -> fmt::Result {
        self.wires()?;
        self.messages()?;
        self.transactions()?;
        self.peers(shared)?;
        self.policy_calls()?;
        self.connections()?;
        self.tls(shared)?;
        self.guard(shared)?;
        self.flow_pings(shared)?;
        self.host(shared, lost_log_lines)?;
        self.exports(exports)?;
        self.names(tenants.dns())?;
        self.audit(audit)?;
        self.fleet(fleet, shared, tenants)?;
        self.rollouts(tenants)?;
        self.table(shared)?;
        self.trusted(shared)?;
        self.rules(shared)?;
        self.dispatcher(shared)?;
        self.policy(tenants.default_files())?;
        self.tenants(&shared.tenants.load())?;
        self.seats(tenants)
    }

    fn counter(&mut self, name: &str, help: &str, n: u64) -> fmt::Result {
        let mut metric = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&n, None)
    }

    fn gauge(&mut self, name: &str, help: &str, n: u64) -> fmt::Result {
        let mut metric = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&n)
    }

    fn family<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, n) in values {
            family
                .encode_family(&[(label, value)])?
                .encode_counter::<NoLabelSet, _, u64>(&n, None)?;
        }
        Ok(())
    }

    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, n) in values {
            family.encode_family(&[(label, value)])?.encode_gauge(&n)?;
        }
        Ok(())
    }

    fn wire(
        &mut self,
        name: &str,
        help: &str,
        pick: impl Fn(&WireCounters) -> &Counter,
    ) -> fmt::Result {
        let workers = self.workers;
        let values = Wire::ALL.iter().map(|&wire| {
            let n = workers
                .iter()
                .map(|worker| pick(worker.wire(wire)).value())
                .sum();
            (wire.label(), n)
        });
        self.family(name, help, "transport", values)
    }

    fn times<S: Scale>(
        &mut self,
        name: &str,
        help: &str,
        pick: impl Fn(&WorkerCounters) -> &TimeCounts<S>,
    ) -> fmt::Result {
        let bounds = S::BOUNDS_US.map(|bound| f64::from(bound) / 1e6);
        let mut buckets: Vec<(f64, u64)> = bounds
            .into_iter()
            .chain([f64::INFINITY])
            .map(|bound| (bound, 0))
            .collect();
        let mut sum = 0.0;
        for worker in self.workers {
            let times = pick(worker);
            for (bucket, n) in buckets.iter_mut().zip(times.buckets()) {
                bucket.1 += n;
            }
            sum += times.sum().as_secs_f64();
        }
        let count = buckets.iter().map(|(_, n)| n).sum();
        let mut metric = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn sum(&self, pick: impl Fn(&WorkerCounters) -> &Counter) -> u64 {
        self.workers.iter().map(|worker| pick(worker).value()).sum()
    }

    /// Writes counters.
    fn series<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = Value<'l>>,
    ) -> fmt::Result {
        self.values(MetricType::Counter, name, help, values)
    }

    /// Writes counters or gauges.
    fn values<'l>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = Value<'l>>,
    ) -> fmt::Result {
        let is_gauge = matches!(kind, MetricType::Gauge);
        let mut family = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, n) in values {
            let used = labels.iter().filter(|(name, _)| !name.is_empty());
            let used: Vec<_> = used.copied().collect();
            let mut one = family.encode_family(&used)?;
            match is_gauge {
                true => one.encode_gauge(&n)?,
                false => one.encode_counter::<NoLabelSet, _, u64>(&n, None)?,
            }
        }
        Ok(())
    }
}
