//! `portcullis policy bench`: what the calls of a policy cost on this machine.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portcullis_config::{Config, show_size};
use portcullis_policy::{Allocation, Evaluator, Policy, Reuse, Runtime, StatedHost};
use portcullis_records::replay::{OfflinePolicy, Query};
use portcullis_rollout::compiler;
use portcullis_text::clean_json;
use serde_json::json;

use super::super::print::clean;
use super::offline::{Surroundings, read};
use super::work::{Load, PreparedCall};

/// Calls before the measurement.
const WARM_UP: usize = 200;

/// Calls in a new instance each.
const FRESH: usize = 200;

/// Most durations that are stored; further calls are counted only.
const MOST: usize = 2_000_000;

/// What is measured, and how long.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    load: Load,
    /// Duration of the measurement in seconds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Durations of calls.
struct Measured {
    calls: u64,
    /// Sorted.
    times: Vec<Duration>,
    took: Duration,
    /// Number of failed calls by their kind.
    failures: BTreeMap<&'static str, u64>,
    /// The least and the most of its memory that a call wrote, in 64ths; `None` if it is not known.
    written: Option<RangeInclusive<u32>>,
    /// Page faults of this thread.
    faults: Option<u64>,
}

pub(super) fn run(
    args: &Args,
    found: (Config, Option<PathBuf>),
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let around = Surroundings::new(found);
    let load = &args.load;
    let bytes = read(&load.policy)?;
    // As on a host: with its pool, its deadline and its compiler process.
    let runtime = Runtime::new(around.config.policy.seat.limits.clone())?;
    runtime.compile_with(compiler::for_a_command());
    let (policy, work) = load.prepared(&around, &runtime)?;
    let reuse = around.seat(&load.seat)?.reuse;
    let policy = policy.with_reuse(reuse);
    let measured = measure(&policy, &work, Duration::from_secs(args.seconds));
    let fresh = fresh(&policy, &work);
    let fuel = fuel(load, &around, &work, &bytes)?;
    let inspection = policy.inspection();
    let allocation = match runtime.allocation() {
        Allocation::Pooled => None,
        Allocation::OnDemand { reason } => Some(reason.as_str()),
    };
    let per_second = measured.calls as f64 / measured.took.as_secs_f64();
    if args.json {
        let micros = |time: Duration| time.as_nanos() as f64 / 1_000.0;
        let line = json!({
            "policy": policy.name(),
            "digest": policy.digest().to_string(),
            "bytes": bytes.len(),
            "load_ms": policy.load_time().as_millis(),
            "calls": measured.calls,
            "failures": measured.failures,
            "per_second": per_second,
            "p50_us": micros(measured.part(50)),
            "p99_us": micros(measured.part(99)),
            "longest_us": micros(measured.part(100)),
            "new_instance_p50_us": micros(fresh.part(50)),
            "fuel": { "least": fuel.0, "most": fuel.1 },
            "memory_bytes": inspection.memory_bytes,
            "max_memory_bytes": inspection.max_memory_bytes,
            "written_bytes": measured.written.as_ref().map(|written| json!({
                "least": part_of(inspection.memory_bytes, *written.start()),
                "most": part_of(inspection.memory_bytes, *written.end()),
            })),
            "new_instance_page_faults": fresh.faults_per_call(),
            "reuse": reuse.to_string(),
            "no_reset_because": policy.no_reset().map(|why| why.to_string()),
            "no_pool_because": allocation,
        });
        writeln!(out, "{}", clean_json(&line.to_string()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut line = |label: &str, text: &str| {
        let label = format!("{label}:");
        writeln!(out, "{label:<14} {}", clean(text))
    };
    let size = show_size(inspection.size as u64);
    let load = policy.load_time().as_millis();
    line(
        "file",
        &format!("{size}, checked, compiled and tested in {load} ms"),
    )?;
    line(
        "calls",
        &format!(
            "{} in {:.1?}: {per_second:.0} per second on one core",
            measured.calls, measured.took
        ),
    )?;
    let [p50, p99, longest] = [50, 99, 100].map(|part| measured.part(part));
    line(
        "one call",
        &format!("median {p50:.1?}, 99 % within {p99:.1?}, longest {longest:.1?}"),
    )?;
    line(
        "new instance",
        &format!("median {:.1?}, the call included", fresh.part(50)),
    )?;
    let instances = match (reuse, policy.no_reset()) {
        (Reuse::Never, None) => "kept, and reset to the first state after each call".to_owned(),
        (Reuse::Never, Some(reason)) => format!("a new one for each call, because {reason}"),
        (Reuse::Calls(calls), _) => {
            format!("a new one after {calls} calls, which keep what they have written (`reuse`)")
        }
        (Reuse::Always, _) => {
            "a new one after a failure; calls keep what they have written (`reuse`)".to_owned()
        }
    };
    line("instances", &instances)?;
    match fuel {
        (least, most) if least == most => line("fuel", &least.to_string())?,
        (least, most) => line(
            "fuel",
            &format!("{least} to {most}, depending on the request"),
        )?,
    }
    let most = match inspection.max_memory_bytes {
        Some(most) => format!("at most {}", show_size(most)),
        None => "no own maximum".to_owned(),
    };
    line(
        "memory",
        &format!(
            "{} at the start, {most}",
            show_size(inspection.memory_bytes)
        ),
    )?;
    if let Some(written) = &measured.written {
        let [least, most] =
            [written.start(), written.end()].map(|part| part_of(inspection.memory_bytes, *part));
        let sizes = match least == most {
            true => show_size(most),
            false => format!("{} to {}", show_size(least), show_size(most)),
        };
        line(
            "written",
            &format!(
                "{sizes}: what a call writes and the host restores; measured in steps of {}",
                show_size(part_of(inspection.memory_bytes, 1))
            ),
        )?;
    }
    if let Some(faults) = fresh.faults_per_call() {
        line(
            "page faults",
            &format!(
                "{faults:.1} for a call in a new instance: pages of 4 KiB that it is the first to touch"
            ),
        )?;
    }
    for (kind, n) in &measured.failures {
        line("failed calls", &format!("{n} ({kind})"))?;
    }
    if let Some(reason) = allocation {
        line(
            "warning",
            &format!("no pool of sandboxes, so every call is slower: {reason}"),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(policy: &Policy, work: &[PreparedCall], duration: Duration) -> Measured {
    let mut evaluator = Evaluator::muted();
    for work in work.iter().cycle().take(WARM_UP) {
        let _warm = decide(&mut evaluator, policy, work);
    }
    let begun = Instant::now();
    let mut measured = Measured::new();
    for work in work.iter().cycle() {
        let (time, failure) = decide(&mut evaluator, policy, work);
        measured.add(time, failure);
        measured.add_written(evaluator.written());
        if begun.elapsed() >= duration {
            break;
        }
    }
    measured.finish(begun)
}

/// Calls in an evaluator that has no instance yet.
fn fresh(policy: &Policy, work: &[PreparedCall]) -> Measured {
    let begun = Instant::now();
    let mut measured = Measured::new();
    let before = page_faults();
    for work in work.iter().cycle().take(FRESH) {
        let (time, failure) = decide(&mut Evaluator::muted(), policy, work);
        measured.add(time, failure);
    }
    measured.faults = page_faults()
        .zip(before)
        .map(|(after, before)| after.saturating_sub(before));
    measured.finish(begun)
}

fn decide(
    evaluator: &mut Evaluator,
    policy: &Policy,
    work: &PreparedCall,
) -> (Duration, Option<&'static str>) {
    let request = work.request.clone();
    let host = Arc::clone(&work.host);
    evaluator.set_host(host);
    let start = Instant::now();
    let (_, answer) = evaluator.decide(policy, &work.scope, &work.tables, request);
    let failure = answer.err().map(|failure| failure.kind().as_str());
    (start.elapsed(), failure)
}

/// The least and the most fuel of a call.
fn fuel(
    load: &Load,
    around: &Surroundings,
    work: &[PreparedCall],
    bytes: &[u8],
) -> anyhow::Result<(u64, u64)> {
    let runtime = around.runtime()?;
    let policy = load.metered(around, &runtime, bytes, work)?;
    let mut used = Vec::with_capacity(work.len());
    for work in work {
        let mut offline = OfflinePolicy::new(policy.clone(), Arc::clone(&work.scope));
        let query = Query {
            request: work.request.clone(),
            at: SystemTime::now(),
            recorded: None,
            failed: None,
            host: StatedHost::clone(&work.host),
        };
        used.extend(offline.call(query, &work.tables).fuel);
    }
    let least = used.iter().min().copied().unwrap_or_default();
    Ok((least, used.iter().max().copied().unwrap_or_default()))
}

/// Page faults of this thread so far that needed no disk (proc(5), `minflt`); `None` where the system does not say.
fn page_faults() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    // The name of the thread may contain spaces; the fields behind it begin with the third.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(7)?.parse().ok()
}

/// So many 64ths of a memory, in bytes.
fn part_of(memory: u64, parts: u32) -> u64 {
    memory / 64 * u64::from(parts)
}

impl Measured {
    fn new() -> Self {
        Self {
            calls: 0,
            times: Vec::new(),
            took: Duration::ZERO,
            failures: BTreeMap::new(),
            written: None,
            faults: None,
        }
    }

    fn add_written(&mut self, part: Option<u32>) {
        let Some(part) = part else {
            return;
        };
        self.written = Some(match &self.written {
            Some(parts) => part.min(*parts.start())..=part.max(*parts.end()),
            None => part..=part,
        });
    }

    fn faults_per_call(&self) -> Option<f64> {
        Some(self.faults? as f64 / self.calls.max(1) as f64)
    }

    fn add(&mut self, time: Duration, failure: Option<&'static str>) {
        self.calls += 1;
        if self.times.len() < MOST {
            self.times.push(time);
        }
        if let Some(kind) = failure {
            *self.failures.entry(kind).or_default() += 1;
        }
    }

    fn finish(mut self, begun: Instant) -> Self {
        self.took = begun.elapsed();
        self.times.sort_unstable();
        self
    }

    /// The time within which this percentage of the calls ended.
    fn part(&self, percent: usize) -> Duration {
        let at = (self.times.len() * percent).div_ceil(100);
        self.times
            .get(at.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let mut measured = Measured::new();
        for milliseconds in (1..=200).rev() {
            measured.add(Duration::from_millis(milliseconds), None);
        }
        measured.add(Duration::from_secs(1), Some("timeout"));
        let measured = measured.finish(Instant::now());
        assert_eq!(measured.part(50), Duration::from_millis(101));
        assert_eq!(measured.part(100), Duration::from_secs(1));
        assert_eq!(measured.failures["timeout"], 1);
        assert_eq!(Measured::new().part(99), Duration::ZERO);
    }

    #[test]
    fn the_least_and_the_most_that_calls_wrote_is_kept() {
        let mut measured = Measured::new();
        for part in [None, Some(3), Some(1), None, Some(2)] {
            measured.add_written(part);
        }
        assert_eq!(measured.written, Some(1..=3));
        assert_eq!(part_of(64 << 10, 3), 3 << 10);
    }

    #[test]
    fn faults_for_new_memory_are_counted() {
        let before = page_faults();
        // More than an allocator keeps ready. The thread may have had no fault before: its stack can be one huge page.
        std::hint::black_box(vec![1_u8; 16 << 20]);
        let after = page_faults();
        assert!(before.is_some() && after > before, "{before:?} {after:?}");
    }
}
