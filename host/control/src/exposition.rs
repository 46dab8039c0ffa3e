//! `/metrics`: the sums of all workers' counters, and the state of tables and policies, in the format that the request asks for.

mod audit;
mod dispatcher;
mod flow_pings;
mod format;
mod guard;
mod process;
mod tables;
mod tenants;
mod tls;

use std::fmt;
use std::sync::Arc;

use portcullis_dataplane::shared::Shared;
use portcullis_export::Exports;
use portcullis_policy::{CodeCounts, CodeOrigin, VerdictKind};
use portcullis_rollout::Registry as Tenants;
use portcullis_rollout::policy_files::PolicyFiles;
use portcullis_sip::RelayErrorKind;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

pub(crate) use format::Format;
use process::{Process, seconds};

use crate::audit::Audit;

use portcullis_metrics::{
    AttemptResult, Counter, FinalClass, HandoverResult, IcmpError, InDialog, Label, Lost, Method,
    Retransmission, Scale, TimeCounts, TransactionCounters, Wire, WireCounters, WorkerCounters,
};

/// All metrics of a running host.
pub(crate) struct Exposition {
    host: Registry,
    /// Metrics whose names are the same for every program.
    process: Registry,
}

impl Exposition {
    /// Creates the metrics of this host.
    pub(crate) fn new(
        shared: Arc<Shared>,
        tenants: Arc<Tenants>,
        audit: Arc<Audit>,
        lost_log_lines: fn() -> u64,
        exports: Exports,
    ) -> Self {
        let mut process = Registry::default();
        let started = shared.started;
        process.register_collector(Box::new(Process { started }));
        let mut host = Registry::with_prefix("portcullis");
        host.register_collector(Box::new(Host {
            shared,
            tenants,
            audit,
            lost_log_lines,
            exports,
        }));
        Self { host, process }
    }

    /// Returns the text of one scrape.
    pub(crate) fn text(&self, format: Format) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(16 << 10);
        text::encode_registry(&mut page, &self.host)?;
        text::encode_registry(&mut page, &self.process)?;
        text::encode_eof(&mut page)?;
        Ok(format.convert(page))
    }
}

struct Host {
    shared: Arc<Shared>,
    tenants: Arc<Tenants>,
    audit: Arc<Audit>,
    lost_log_lines: fn() -> u64,
    exports: Exports,
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
        page.transactions()?;
        page.policy_calls()?;
        page.connections()?;
        page.tls(&self.shared)?;
        page.guard(&self.shared)?;
        page.flow_pings(&self.shared)?;
        page.host(&self.shared)?;
        page.exports(&self.exports)?;
        page.names(self.tenants.dns())?;
        page.audit(&self.audit)?;
        page.table(&self.shared)?;
        page.trusted(&self.shared)?;
        page.rules(&self.shared)?;
        page.dispatcher(&self.shared)?;
        page.policy(self.tenants.default_files())?;
        page.tenants(&self.shared.tenants.load())?;
        page.seats(&self.tenants)
    }
}

/// The page that is being written.
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
            "SIP requests received",
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
        self.wire("responses", "SIP responses received", |c| &c.responses)?;
        self.wire(
            "received_messages",
            "Messages received, including malformed ones",
            |c| &c.received,
        )?;
        self.wire("received_bytes", "Bytes received", |c| &c.received_bytes)?;
        self.wire(
            "sent_messages",
            "Messages sent: relayed messages and the host's own responses",
            |c| &c.sent,
        )?;
        self.wire("sent_bytes", "Bytes sent", |c| &c.sent_bytes)?;
        self.wire(
            "send_errors",
            "Messages that the system failed to send",
            |c| &c.send_errors,
        )?;
        self.wire("keepalives", "Keep-alives received", |c| &c.keepalives)
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
            "Responses generated by the host",
            "code",
            codes.iter().map(|(code, n)| (code.as_str(), *n)),
        )?;
        let relayed = [
            ("request", self.sum(|w| &w.relayed_requests)),
            ("response", self.sum(|w| &w.relayed_responses)),
        ];
        self.family("relayed", "Messages relayed", "kind", relayed)?;
        let workers = self.workers;
        let errors = RelayErrorKind::ALL.iter().map(|&kind| {
            let n = workers.iter().map(|w| w.relay_errors.value(kind)).sum();
            (Label::label(kind), n)
        });
        self.family(
            "relay_errors",
            "Requests that could not be relayed",
            "kind",
            errors,
        )?;
        let refused = self.sum(|w| &w.websockets_refused);
        self.counter(
            "websockets_refused",
            "WebSocket connections refused",
            refused,
        )?;
        let flows = self.sum(|w| &w.flow_requests);
        self.counter(
            "flow_requests",
            "Requests relayed along the flow of a client",
            flows,
        )?;
        let absorbed = self.sum(|w| &w.absorbed_acks);
        self.counter(
            "absorbed_acks",
            "ACKs to the host's own rejections, which are absorbed",
            absorbed,
        )?;
        let shortened = self.sum(|w| &w.shortened_answers);
        self.counter(
            "shortened_answers",
            "Responses of policies over UDP that were too large for their destination and were sent without the policy's header fields",
            shortened,
        )?;
        let (workers, page) = (self.workers, self);
        let total = |count: &dyn Fn(&WorkerCounters) -> u64| workers.iter().map(count).sum::<u64>();
        let in_dialog = InDialog::ALL
            .iter()
            .map(|&seal| (seal.label(), total(&|w| w.in_dialog.value(seal))));
        page.family(
            "in_dialog",
            "Requests with the seal of a dialog, by result",
            "seal",
            in_dialog,
        )?;
        let dropped = portcullis_sip::DropReason::ALL
            .iter()
            .map(|&reason| (Label::label(reason), total(&|w| w.dropped.value(reason))));
        let lost = Lost::ALL
            .iter()
            .map(|&reason| (reason.label(), total(&|w| w.lost.value(reason))));
        page.family("dropped", "Messages dropped", "reason", dropped.chain(lost))
    }

    fn transactions(&mut self) -> fmt::Result {
        let (workers, page) = (self.workers, self);
        let total = |count: &dyn Fn(&TransactionCounters) -> u64| {
            let each = workers.iter().map(|worker| count(&worker.transactions));
            each.sum::<u64>()
        };
        let active = total(&|t| t.active.value());
        page.gauge("transactions_active", "Transactions in progress", active)?;
        page.gauge(
            "transactions_lingering",
            "Ended transactions that absorb retransmissions",
            total(&|t| t.lingering.value()),
        )?;
        page.gauge(
            "transactions_stored_bytes",
            "Size of the messages that transactions store, and of what policies said about their requests",
            total(&|t| t.stored_bytes.value()),
        )?;
        page.counter(
            "transactions_begun",
            "Requests relayed in a transaction",
            total(&|t| t.begun.value()),
        )?;
        let ended = FinalClass::ALL
            .iter()
            .map(|&class| (class.label(), total(&|t| t.ended.value(class))));
        page.family(
            "transactions_ended",
            "Transactions that ended, by class of their final response",
            "code",
            ended,
        )?;
        page.counter(
            "transactions_cancelled",
            "Transactions that their sender or tm.cancel cancelled",
            total(&|t| t.cancelled.value()),
        )?;
        page.counter(
            "transactions_shed",
            "Requests answered 503 because a limit of [transactions] was reached",
            total(&|t| t.shed.value()),
        )?;
        page.counter(
            "unconfirmed_failures",
            "Failure responses to an INVITE that were never acknowledged",
            total(&|t| t.unconfirmed.value()),
        )?;
        page.counter(
            "late_successes",
            "2xx responses to an INVITE after its first final response",
            total(&|t| t.late_successes.value()),
        )?;
        page.counter(
            "address_failovers",
            "Addresses of targets that failed and were followed by another address",
            total(&|t| t.failovers.value()),
        )?;
        let attempts = AttemptResult::ALL
            .iter()
            .map(|&result| (result.label(), total(&|t| t.attempts.value(result))));
        page.family(
            "attempts",
            "Targets of transactions, by result",
            "result",
            attempts,
        )?;
        let named = workers.iter().take(1);
        let named = named.flat_map(|worker| worker.transactions.next_hop_attempts.names());
        let total = &total;
        let attempts = named.flat_map(|name| {
            AttemptResult::ALL.iter().map(move |&result| {
                let labels = [("next_hop", name), ("result", result.label())];
                (labels, total(&|t| t.next_hop_attempts.value(name, result)))
            })
        });
        page.series(
            "next_hop_attempts",
            "Targets of transactions that are named next hops, by result",
            attempts,
        )?;
        let retransmissions = Retransmission::ALL
            .iter()
            .map(|&kind| (kind.label(), total(&|t| t.retransmissions.value(kind))));
        page.family(
            "retransmissions",
            "Retransmissions received and sent",
            "kind",
            retransmissions,
        )?;
        let unmatched = [
            ("stray", total(&|t| t.strays.value())),
            ("adopted", total(&|t| t.adopted.value())),
            ("passed", total(&|t| t.passed.value())),
            ("not_passed", total(&|t| t.not_passed.value())),
            ("conflict", total(&|t| t.conflicts.value())),
        ];
        page.family(
            "unmatched_messages",
            "Messages without a transaction: stray responses, responses adopted after a start, messages passed on to the process before an upgrade or not, requests in conflict with another sender's",
            "kind",
            unmatched,
        )?;
        let icmp_errors = IcmpError::ALL
            .iter()
            .map(|&what| (what.label(), total(&|t| t.icmp_errors.value(what))));
        page.family(
            "icmp_errors",
            "ICMP errors about datagrams that the host sent: destination unreachable",
            "about",
            icmp_errors,
        )?;
        let handovers = HandoverResult::ALL
            .iter()
            .map(|&result| (result.label(), total(&|t| t.handovers.value(result))));
        page.family(
            "handovers",
            "Messages received by a worker that does not own their transaction",
            "result",
            handovers,
        )?;
        page.times(
            "transaction_first_response_seconds",
            "Time from a request that is relayed in a transaction to its first response above 100",
            |w| &w.transactions.first_responses,
        )?;
        page.times(
            "transaction_final_response_seconds",
            "Time from a request that is relayed in a transaction to its final response",
            |w| &w.transactions.final_responses,
        )
    }

    fn policy_calls(&mut self) -> fmt::Result {
        let calls = self
            .workers
            .iter()
            .flat_map(|worker| worker.policy_time.buckets())
            .sum();
        self.counter("policy_calls", "Policy calls", calls)?;
        let workers = self.workers;
        let verdicts = VerdictKind::ALL.iter().map(|&verdict| {
            let n = workers
                .iter()
                .map(|worker| worker.verdicts.value(verdict))
                .sum();
            (verdict.label(), n)
        });
        self.family("verdicts", "Verdicts of policies", "verdict", verdicts)?;
        let failures = portcullis_policy::FailureKind::ALL.iter().map(|&kind| {
            let n = workers
                .iter()
                .map(|worker| worker.policy_failures.value(kind))
                .sum();
            (kind.label(), n)
        });
        self.family("policy_failures", "Failed policy calls", "kind", failures)?;
        self.times("policy_duration_seconds", "Duration of policy calls", |w| {
            &w.policy_time
        })
    }

    fn connections(&mut self) -> fmt::Result {
        let accepted = self.sum(|w| &w.connections.accepted);
        let opened = self.sum(|w| &w.connections.opened);
        let closed = self.sum(|w| &w.connections.closed);
        let directions = [("accepted", accepted), ("opened", opened)];
        self.family(
            "connections",
            "Stream connections opened",
            "direction",
            directions,
        )?;
        let open = (accepted + opened).saturating_sub(closed);
        self.gauge("connections_open", "Open stream connections", open)?;
        let errors = self.sum(|w| &w.connections.connect_errors);
        self.counter(
            "connect_errors",
            "Stream connections that could not be opened",
            errors,
        )?;
        let evicted = self.sum(|w| &w.connections.evicted);
        self.counter(
            "connections_evicted",
            "Idle stream connections closed to make room",
            evicted,
        )?;
        let errors = self.sum(|w| &w.connections.accept_errors);
        self.counter(
            "accept_errors",
            "Stream connections not accepted because no file descriptor was left",
            errors,
        )
    }

    fn host(&mut self, shared: &Shared) -> fmt::Result {
        let mut build =
            self.encoder
                .encode_descriptor("build", "Build of the host", None, MetricType::Info)?;
        build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        self.gauge(
            "start_time_seconds",
            "Start time of the host since the Unix epoch",
            seconds(shared.started),
        )?;
        self.gauge("workers", "Worker threads", self.workers.len() as u64)?;
        self.counter(
            "log_lines_lost",
            "Log lines lost because standard error was not read in time",
            (self.lost_log_lines)(),
        )?;
        let notices = &shared.notices;
        self.gauge(
            "next_hops_down",
            "Next hops whose last TCP connection attempt failed",
            notices.hops.down().len() as u64,
        )?;
        self.gauge(
            "traces",
            "Running live traces",
            notices.traces.count() as u64,
        )?;
        if let Some(capture) = &shared.capture {
            self.counter(
                "capture_packets",
                "Packets sent to the capture server",
                capture.told().sent(),
            )?;
            self.family(
                "capture_lost",
                "Packets for the capture server lost, by reason: queue full, message too long, refused by the system",
                "reason",
                capture.told().lost(),
            )?;
        }
        let Some(records) = &shared.records else {
            return Ok(());
        };
        self.counter(
            "records_written",
            "Records written",
            records.told().written(),
        )?;
        self.family(
            "records_lost",
            "Records lost, by reason: rate exceeded, queue full, line too long, file error",
            "reason",
            records.told().lost(),
        )?;
        if let Some(calls) = records.calls() {
            let told = calls.told();
            self.counter(
                "call_records_written",
                "Call records written",
                told.written(),
            )?;
            self.family(
                "call_records_lost",
                "Call records lost, by reason: queue full, line too long, file error",
                "reason",
                told.lost()
                    .into_iter()
                    .filter(|(reason, _)| *reason != "rate"),
            )?;
            self.gauge(
                "call_records_waiting_bytes",
                "Memory of the call records that wait to be written",
                told.waiting() as u64,
            )?;
            self.gauge(
                "call_records_trouble",
                "1 while the file of call records cannot be written",
                u64::from(told.error().is_some()),
            )?;
        }
        self.gauge(
            "records_trouble",
            "1 while the file of records cannot be written",
            u64::from(records.told().error().is_some()),
        )?;
        self.gauge(
            "records_waiting_bytes",
            "Memory of the records that wait to be written",
            records.told().waiting() as u64,
        )
    }

    fn exports(&mut self, exports: &Exports) -> fmt::Result {
        if exports.is_empty() {
            return Ok(());
        }
        let sent = exports.iter().map(|(to, told)| (*to, told.sent()));
        self.family(
            "export_sent",
            "Spans and events delivered, by destination",
            "to",
            sent,
        )?;
        let lost = exports.iter().flat_map(|(to, told)| {
            let reasons = told.lost().into_iter();
            reasons.map(move |(reason, n)| ([("to", *to), ("reason", reason)], n))
        });
        self.series(
            "export_lost",
            "Spans and events lost, by destination and reason: queue full, not accepted",
            lost,
        )
    }

    fn policy(&mut self, policy: &PolicyFiles) -> fmt::Result {
        let slot = policy.slot();
        let (loads, failures) = policy.counts();
        let results = [("ok", loads), ("failed", failures)];
        self.family(
            "policy_loads",
            "Loads of the policy file, by result",
            "result",
            results,
        )?;
        self.gauge(
            "policy_generation",
            "Number of the active generation; 0 without one",
            slot.number(),
        )?;
        let live = slot.live_generations() as u64;
        self.gauge(
            "policy_live_generations",
            "Generations in memory, including old ones that a worker still uses",
            live,
        )?;
        let loaded = slot
            .current()
            .map_or(0, |generation| seconds(generation.loaded_at));
        self.gauge(
            "policy_loaded_timestamp_seconds",
            "Load time of the active policy since the Unix epoch",
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
            "Policies of all seats, by source of their machine code: compiler, cache on disk, or another policy in memory",
            "from",
            origins,
        )?;
        if let Some(cache) = runtime.cache() {
            self.gauge(
                "policy_cache_bytes",
                "Size of the compiled code in the cache on disk",
                cache.bytes(),
            )?;
        }
        let pool = runtime.pool_use();
        self.gauge("policy_sandboxes", "Sandboxes that exist", pool.live)?;
        self.gauge(
            "policy_sandboxes_max",
            "Limit of the number of sandboxes",
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
}
