//! Metrics of the host as a whole: build, log, capture, records and exports.

use std::fmt;

use portcullis_dataplane::shared::Shared;
use portcullis_export::Exports;
use prometheus_client::metrics::MetricType;

use super::Page;
use crate::exposition::process::seconds;

impl Page<'_, '_> {
    pub(super) fn host(&mut self, shared: &Shared, lost_log_lines: u64) -> fmt::Result {
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
            lost_log_lines,
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
                capture.stats().sent(),
            )?;
            self.family(
                "capture_lost",
                "Packets for the capture server lost, by reason: queue full, message too long, refused by the system",
                "reason",
                capture.stats().lost(),
            )?;
        }
        let Some(records) = &shared.records else {
            return Ok(());
        };
        self.counter(
            "records_written",
            "Records written",
            records.stats().written(),
        )?;
        self.family(
            "records_lost",
            "Records lost, by reason: rate exceeded, queue full, line too long, file error",
            "reason",
            records.stats().lost(),
        )?;
        if let Some(calls) = records.calls() {
            let stats = calls.stats();
            self.counter(
                "call_records_written",
                "Call records written",
                stats.written(),
            )?;
            self.family(
                "call_records_lost",
                "Call records lost, by reason: queue full, line too long, file error",
                "reason",
                stats
                    .lost()
                    .into_iter()
                    .filter(|(reason, _)| *reason != "rate"),
            )?;
            self.gauge(
                "call_records_waiting_bytes",
                "Memory of the call records that wait to be written",
                stats.waiting() as u64,
            )?;
            self.gauge(
                "call_records_trouble",
                "1 while the file of call records cannot be written",
                u64::from(stats.error().is_some()),
            )?;
        }
        self.gauge(
            "records_trouble",
            "1 while the file of records cannot be written",
            u64::from(records.stats().error().is_some()),
        )?;
        self.gauge(
            "records_waiting_bytes",
            "Memory of the records that wait to be written",
            records.stats().waiting() as u64,
        )
    }

    pub(super) fn exports(&mut self, exports: &Exports) -> fmt::Result {
        if exports.is_empty() {
            return Ok(());
        }
        let sent = exports.iter().map(|(to, stats)| (*to, stats.sent()));
        self.family(
            "export_sent",
            "Spans and events delivered, by destination",
            "to",
            sent,
        )?;
        let lost = exports.iter().flat_map(|(to, stats)| {
            let reasons = stats.lost().into_iter();
            reasons.map(move |(reason, n)| ([("to", *to), ("reason", reason)], n))
        });
        self.series(
            "export_lost",
            "Spans and events lost, by destination and reason: queue full, not accepted",
            lost,
        )
    }
}
