//! The soak: a quiet phase, then two phases with all activities. The resources of the host are compared after each of these two.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use portcullis_load::{Histogram, Mode, Plan as Load};
use portcullis_testkit::wait;

use crate::actors::{self, panic_text};
use crate::honest::{self, Latencies};
use crate::process::{Held, dropped_by_kernel, settled};
use crate::report::{Honest, Report, explain};
use crate::site::{Site, at};
use crate::turns::{Stop, StopOnDrop};

/// Parameters of a soak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Length of all phases together.
    pub(crate) length: Duration,
    /// Requests per second of the counted traffic.
    pub(crate) rate: u64,
    /// Upper bound for the 99th percentile of honest requests.
    pub(crate) p99: Duration,
    /// Honest requests per thousand that may be rejected for overload.
    pub(crate) turned_away: u64,
}

/// The share of the time in which only the honest traffic runs.
const QUIET: f64 = 0.1;

/// Largest increase of the host's resources from the first of these phases to the second. A leak of each change or failure would exceed it.
const MORE: Held = Held {
    memory_mib: 48,
    files: 12,
    maps: 48,
    threads: 8,
};

/// Largest resources of the host at any moment.
const CEILING_MIB: u64 = 512;

/// Turn numbers of the second phase begin here.
const SECOND: u64 = 1_000_000;

/// Runs a soak.
///
/// # Errors
/// If it cannot be set up. Broken invariants are in the report.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let begun = Instant::now();
    let site = Site::start()?;
    eprintln!("The host runs with {:?}.", Held::of(site.host.pid())?);
    let quiet_length = plan.length.mul_f64(QUIET);
    let (_, quiet) = phase(&site, plan, || {
        std::thread::sleep(quiet_length);
    })?;
    let length = (plan.length - quiet_length) / 2;
    let (max_first, first) = phase(&site, plan, || actors::run_all(&site, length, 0))?;
    let after_first = settled(site.host.pid())?;
    let (max_second, second) = phase(&site, plan, || actors::run_all(&site, length, SECOND))?;
    let after_second = settled(site.host.pid())?;
    check_transactions(&site);
    let report = Report {
        seconds: begun.elapsed().as_secs(),
        rate: plan.rate,
        quiet,
        first,
        second,
        after_first,
        after_second,
        most: max_first.max(max_second),
        counts: site.books.counts(),
        policy_failures: site.host.metric("portcullis_policy_failures_total", &[]) as u64,
        disk: site.disk.is_some(),
        dropped_by_the_kernel: dropped_by_kernel(site.host.sip())?,
        broken: Vec::new(),
    };
    check(&site, plan, &report);
    let broken = site.books.all_broken();
    explain(&site.host, &broken);
    Ok(Report { broken, ..report })
}

/// Runs the honest traffic while `rest` runs. Returns the largest resources of the host, and the latencies.
fn phase(site: &Site, plan: &Plan, rest: impl FnOnce()) -> Result<(Held, Honest)> {
    let stop = Stop::default();
    let latencies: Latencies = Mutex::new(Histogram::new());
    let mut most = Held::default();
    let mut traffic = None;
    std::thread::scope(|threads| {
        let _all = StopOnDrop(&stop);
        let (stop, latencies) = (&stop, &latencies);
        let counted =
            threads.spawn(move || honest::counted(strangers(site, plan), &site.books, stop));
        let callers = [site.host.udp(at::WATCHER), site.host.tcp(at::WATCHER)];
        let mut others: Vec<_> = callers
            .into_iter()
            .map(|caller| {
                threads.spawn(move || honest::watch_generations(site, caller, stop, latencies))
            })
            .collect();
        others.push(threads.spawn(move || honest::call(site, stop, latencies)));
        others.push(threads.spawn(move || honest::cancel(site, stop)));
        let sampler = threads.spawn(move || sample(site, stop));
        rest();
        stop.stop();
        for thread in others {
            if let Err(panic) = thread.join() {
                site.books
                    .broken(format!("an honest caller: {}", panic_text(&*panic)));
            }
        }
        most = sampler.join().unwrap_or_default();
        traffic = counted.join().ok();
    });
    let Some(traffic) = traffic else {
        bail!("the counted traffic came to no end");
    };
    let latencies = latencies.into_inner().unwrap_or_default().latency();
    Ok((most, Honest::new(&traffic?, latencies)))
}

/// Sends requests at a fixed rate from unknown sources. All are answered 401 by one of the policy files, which are swapped meanwhile.
fn strangers(site: &Site, plan: &Plan) -> Load {
    let first = site.host.lease().ip(at::TRAFFIC);
    let mut load = Load::new(site.host.sip(), Mode::Reject, first);
    load.rate = Some(plan.rate);
    load
}

/// Reads the host's resources every second.
fn sample(site: &Site, stop: &Stop) -> Held {
    let mut most = Held::default();
    while stop.pause(Duration::from_secs(1)) {
        match Held::of(site.host.pid()) {
            Ok(held) => most = most.max(held),
            Err(error) => site.books.broken(format!("the host has ended: {error:#}")),
        }
        if most.memory_mib > CEILING_MIB {
            site.books.broken(format!(
                "the host holds {} MiB, more than {CEILING_MIB}",
                most.memory_mib
            ));
        }
    }
    most
}

/// Without traffic, each transaction ends. None takes longer than timer B, and timer H after it.
fn check_transactions(site: &Site) {
    const LONGEST: Duration = Duration::from_secs(70);
    let active = || site.host.metric("portcullis_transactions_active", &[]);
    if wait::within(LONGEST, || (active() == 0.0).then_some(())).is_none() {
        site.books.broken(format!(
            "{} transactions are in progress {LONGEST:?} after the traffic",
            active()
        ));
    }
    let begun = site.host.metric("portcullis_transactions_begun_total", &[]);
    site.books.add("transactions", begun as u64);
}

fn check(site: &Site, plan: &Plan, report: &Report) {
    let bound = report.after_first.and(MORE);
    for text in report.after_second.beyond(&bound) {
        site.books.broken(format!(
            "after the second phase the host holds {text}: {:?}",
            report.after_first
        ));
    }
    let bound = plan.p99.as_secs_f64() * 1000.0;
    for (phase, honest) in [("first", &report.first), ("second", &report.second)] {
        if honest.p99_ms > bound {
            site.books.broken(format!(
                "p99 of honest requests was {:.1} ms in the {phase} phase; {bound} ms were expected at most",
                honest.p99_ms
            ));
        }
    }
    honest::check(&site.books, plan.turned_away, report.dropped_by_the_kernel);
    let count = |what: &str| report.counts.get(what).copied().unwrap_or_default();
    for actor in actors::names() {
        let needs_disk = actor == "disk filled" && !report.disk;
        if count(actor) == 0 && !needs_disk {
            site.books.broken(format!("never done: {actor}"));
        }
    }
}
