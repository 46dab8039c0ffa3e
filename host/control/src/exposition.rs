//! What `/metrics` shows: the counters of all workers added up, and the state of table and policy, in the text format of
//! OpenMetrics.

mod tables;
mod tenants;

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_dataplane::shared::Shared;
use portcullis_policy::{CodeCounts, CodeOrigin, VerdictKind};
use portcullis_rollout::Registry as Tenants;
use portcullis_rollout::policy_files::PolicyFiles;
use portcullis_sip::RelayErrorKind;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use portcullis_metrics::{
    Counter, InDialog, Label, Lost, Method, TimeCounts, Wire, WireCounters, WorkerCounters,
};

/// The media type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that a running host tells to Prometheus.
pub(crate) struct Exposition {
    registry: Registry,
}

impl Exposition {
    /// The metrics of this host.
    pub(crate) fn new(
        shared: Arc<Shared>,
        tenants: Arc<Tenants>,
        lost_log_lines: fn() -> u64,
    ) -> Self {
        let mut registry = Registry::with_prefix("portcullis");
        registry.register_collector(Box::new(Host {
            shared,
            tenants,
            lost_log_lines,
        }));
        Self { registry }
    }

    /// The text of one scrape.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(16 << 10);
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

struct Host {
    shared: Arc<Shared>,
    tenants: Arc<Tenants>,
    lost_log_lines: fn() -> u64,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

impl Collector for Host {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page {
            encoder,
            workers: &self.shared.counters,
            lost_log_lines: self.lost_log_lines,
        };
        page.wires()?;
        page.messages()?;
        page.policy_calls()?;
        page.connections()?;
        page.host(&self.shared)?;
        page.table(&self.shared)?;
        page.trusted(&self.shared)?;
        page.rules(&self.shared)?;
        page.policy(self.tenants.default_files())?;
        page.tenants(&self.shared.tenants.load())?;
        page.seats(&self.tenants)
    }
}

/// One page being written.
struct Page<'e, 'w> {
    encoder: DescriptorEncoder<'e>,
    workers: &'w [WorkerCounters],
    lost_log_lines: fn() -> u64,
}

impl Page<'_, '_> {
    fn wires(&mut self) -> fmt::Result {
        let workers = self.workers;
        let mut requests = self.encoder.encode_descriptor(
            "requests",
            "Requests that came in and could be read",
            None,
            MetricType::Counter,
        )?;
        for wire in Wire::ALL {
            for method in Method::ALL {
                let n: u64 = workers
                    .iter()
                    .map(|worker| worker.wire(*wire).requests.value(*method))
                    .sum();
                let labels = [("transport", wire.label()), ("method", method.label())];
                requests
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&n, None)?;
            }
        }
        self.wire(
            "responses",
            "Responses that came in and could be read",
            |c| &c.responses,
        )?;
        self.wire(
            "received_messages",
            "Messages that came in, readable or not",
            |c| &c.received,
        )?;
        self.wire("received_bytes", "Bytes that came in", |c| {
            &c.received_bytes
        })?;
        self.wire(
            "sent_messages",
            "Messages that went out, relayed ones and own replies",
            |c| &c.sent,
        )?;
        self.wire("sent_bytes", "Bytes that went out", |c| &c.sent_bytes)?;
        self.wire(
            "send_errors",
            "Messages that the system refused to send",
            |c| &c.send_errors,
        )?;
        self.wire("keepalives", "Keep-alives that came in", |c| &c.keepalives)
    }

    fn messages(&mut self) -> fmt::Result {
        let replies = self.workers.iter().flat_map(|worker| worker.replies.iter());
        let mut codes = std::collections::BTreeMap::<u16, u64>::new();
        for (code, n) in replies {
            *codes.entry(code).or_default() += n;
        }
        let codes: Vec<_> = codes
            .into_iter()
            .map(|(code, n)| (code.to_string(), n))
            .collect();
        self.family(
            "replies",
            "Replies of our own",
            "code",
            codes.iter().map(|(code, n)| (code.as_str(), *n)),
        )?;
        let relayed = [
            ("request", self.sum(|w| &w.relayed_requests)),
            ("response", self.sum(|w| &w.relayed_responses)),
        ];
        self.family("relayed", "Messages that were sent on", "kind", relayed)?;
        let workers = self.workers;
        let errors = RelayErrorKind::ALL.iter().map(|&kind| {
            let n = workers.iter().map(|w| w.relay_errors.value(kind)).sum();
            (Label::label(kind), n)
        });
        self.family(
            "relay_errors",
            "Requests that were to be sent on and could not be",
            "kind",
            errors,
        )?;
        let absorbed = self.sum(|w| &w.absorbed_acks);
        self.counter(
            "absorbed_acks",
            "ACKs to rejections of our own, which end here",
            absorbed,
        )?;
        let shortened = self.sum(|w| &w.shortened_answers);
        self.counter(
            "shortened_answers",
            "Answers of policies over UDP that were too large for a source that has not proved itself, and were sent without the policy's header fields",
            shortened,
        )?;
        let (workers, page) = (self.workers, self);
        let total = |count: &dyn Fn(&WorkerCounters) -> u64| workers.iter().map(count).sum::<u64>();
        let in_dialog = InDialog::ALL
            .iter()
            .map(|&seal| (seal.label(), total(&|w| w.in_dialog.value(seal))));
        page.family(
            "in_dialog",
            "Requests that brought the seal of a dialog, by what it told",
            "seal",
            in_dialog,
        )?;
        let dropped = portcullis_sip::DropReason::ALL
            .iter()
            .map(|&reason| (Label::label(reason), total(&|w| w.dropped.value(reason))));
        let lost = Lost::ALL
            .iter()
            .map(|&reason| (reason.label(), total(&|w| w.lost.value(reason))));
        page.family(
            "dropped",
            "Messages that got neither an answer nor a next hop",
            "reason",
            dropped.chain(lost),
        )
    }

    fn policy_calls(&mut self) -> fmt::Result {
        let calls = self
            .workers
            .iter()
            .flat_map(|worker| worker.policy_time.buckets())
            .sum();
        self.counter("policy_calls", "Calls of the policy", calls)?;
        let workers = self.workers;
        let verdicts = VerdictKind::ALL.iter().map(|&verdict| {
            let n = workers
                .iter()
                .map(|worker| worker.verdicts.value(verdict))
                .sum();
            (verdict.label(), n)
        });
        self.family("verdicts", "Verdicts of the policy", "verdict", verdicts)?;
        let failures = portcullis_policy::FailureKind::ALL.iter().map(|&kind| {
            let n = workers
                .iter()
                .map(|worker| worker.policy_failures.value(kind))
                .sum();
            (kind.label(), n)
        });
        self.family(
            "policy_failures",
            "Calls of the policy that brought no verdict",
            "kind",
            failures,
        )?;
        self.times(
            "policy_duration_seconds",
            "Time that the policy took for a verdict",
            |w| &w.policy_time,
        )
    }

    fn connections(&mut self) -> fmt::Result {
        let accepted = self.sum(|w| &w.connections.accepted);
        let opened = self.sum(|w| &w.connections.opened);
        let closed = self.sum(|w| &w.connections.closed);
        let directions = [("accepted", accepted), ("opened", opened)];
        self.family(
            "connections",
            "Stream connections that were made",
            "direction",
            directions,
        )?;
        let open = (accepted + opened).saturating_sub(closed);
        self.gauge("connections_open", "Stream connections that are open", open)?;
        let errors = self.sum(|w| &w.connections.connect_errors);
        self.counter(
            "connect_errors",
            "Stream connections that could not be opened",
            errors,
        )?;
        let evicted = self.sum(|w| &w.connections.evicted);
        self.counter(
            "connections_evicted",
            "Idle stream connections that ended because another one needed the place",
            evicted,
        )?;
        let errors = self.sum(|w| &w.connections.accept_errors);
        self.counter(
            "accept_errors",
            "Stream connections that were not accepted because no descriptor was left",
            errors,
        )
    }

    fn host(&mut self, shared: &Shared) -> fmt::Result {
        let mut build =
            self.encoder
                .encode_descriptor("build", "The program", None, MetricType::Info)?;
        build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        self.gauge(
            "start_time_seconds",
            "When the host started, since 1970",
            seconds(shared.started),
        )?;
        self.gauge(
            "workers",
            "Threads that carry calls",
            self.workers.len() as u64,
        )?;
        self.counter(
            "log_lines_lost",
            "Log lines that nobody read in time",
            (self.lost_log_lines)(),
        )?;
        let notices = &shared.notices;
        self.gauge(
            "next_hops_down",
            "Next hops that took no TCP connection when they were tried last",
            notices.hops.down().len() as u64,
        )?;
        self.gauge(
            "traces",
            "Live traces that run",
            notices.traces.count() as u64,
        )?;
        let Some(records) = &shared.records else {
            return Ok(());
        };
        self.counter(
            "records_written",
            "Decisions that were written down",
            records.told().written(),
        )?;
        self.family(
            "records_lost",
            "Decisions that were to be written down and were not: beyond the rate, no room in the queue, a line too long, the file failed",
            "reason",
            records.told().lost(),
        )?;
        self.gauge(
            "records_waiting_bytes",
            "What decisions that wait to be written down take in memory",
            records.told().waiting() as u64,
        )
    }

    fn policy(&mut self, policy: &PolicyFiles) -> fmt::Result {
        let slot = policy.slot();
        let (loads, failures) = policy.counts();
        let results = [("ok", loads), ("failed", failures)];
        self.family(
            "policy_loads",
            "Loads of the policy file that brought a new policy or an error",
            "result",
            results,
        )?;
        self.gauge(
            "policy_generation",
            "Number of the policy that serves; 0 without one",
            slot.number(),
        )?;
        let live = slot.live_generations() as u64;
        self.gauge(
            "policy_live_generations",
            "Policies in memory, old ones that a worker still has among them",
            live,
        )?;
        let loaded = slot
            .current()
            .map_or(0, |generation| seconds(generation.loaded_at));
        self.gauge(
            "policy_loaded_timestamp_seconds",
            "When the policy was loaded, since 1970",
            loaded,
        )?;
        let runtime = policy.runtime();
        let CodeCounts {
            compiled,
            cached,
            shared,
        } = runtime.code_counts();
        let origins = [
            (CodeOrigin::Compiler.as_str(), compiled),
            (CodeOrigin::Cache.as_str(), cached),
            (CodeOrigin::Memory.as_str(), shared),
        ];
        self.family(
            "policy_code",
            "Policies that got their machine code, all seats together: from the compiler, from the cache on disk, or from another policy in memory",
            "from",
            origins,
        )?;
        if let Some(cache) = runtime.cache() {
            self.gauge(
                "policy_cache_bytes",
                "What compiled code takes in the cache on disk",
                cache.bytes(),
            )?;
        }
        let pool = runtime.pool_use();
        self.gauge("policy_sandboxes", "Sandboxes that exist", pool.live)?;
        self.gauge(
            "policy_sandboxes_max",
            "Sandboxes that may exist",
            pool.size,
        )
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

    fn times(
        &mut self,
        name: &str,
        help: &str,
        pick: impl Fn(&WorkerCounters) -> &TimeCounts,
    ) -> fmt::Result {
        let bounds = TimeCounts::BOUNDS_US.map(|bound| f64::from(bound) / 1e6);
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
}

/// Whole seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
