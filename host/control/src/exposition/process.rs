//! The metrics of the process that every client library of Prometheus has, under the same names.

use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, fs};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::memory::{kibibytes, number};

/// The process. Values that the system does not report are omitted.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) started: SystemTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(cpu) = cpu_seconds() {
            let help = "User and system CPU time of the process";
            let counter = MetricType::Counter;
            let mut metric =
                encoder.encode_descriptor("process_cpu_seconds", help, None, counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&cpu, None)?;
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limit = getrlimit(Resource::RLIMIT_NOFILE).ok();
        for (name, help, value) in [
            (
                "process_start_time_seconds",
                "Start time of the process since the Unix epoch",
                Some(seconds(self.started)),
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory",
                kibibytes(&status, "VmRSS"),
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory",
                kibibytes(&status, "VmSize"),
            ),
            (
                "process_threads",
                "Threads of the process",
                number(&status, "Threads"),
            ),
            ("process_open_fds", "Open file descriptors", open_files()),
            (
                "process_max_fds",
                "Limit of open file descriptors",
                limit.map(|(soft, _)| soft),
            ),
        ] {
            if let Some(value) = value {
                let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                metric.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let microseconds =
        usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    // Exact for 285 years of CPU time.
    #[expect(clippy::cast_precision_loss)]
    let seconds = microseconds as f64 / 1e6;
    Some(seconds)
}

/// The number of open files, without the one that lists them.
fn open_files() -> Option<u64> {
    let listed = fs::read_dir("/proc/self/fd").ok()?.count();
    Some((listed as u64).saturating_sub(1))
}

/// Whole seconds since the Unix epoch.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
