//! The soak itself: a quiet phase, then two phases with everything on, after each of which what the host holds is compared.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use portcullis_load::Histogram;
use portcullis_testkit::wait;

use crate::actors::{self, panic_text};
use crate::honest::{self, Latencies};
use crate::process::{Held, kernel_drops};
use crate::report::{Honest, Report};
use crate::site::{Site, at};
use crate::turns::{Stop, StopOnDrop};

/// What a soak is asked to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Of all phases together.
    pub(crate) length: Duration,
    /// Requests a second of the counted traffic.
    pub(crate) rate: u64,
    /// What the 99th percentile of honest requests may be.
    pub(crate) p99: Duration,
    /// How many of a thousand honest requests may be turned away.
    pub(crate) turned_away: u64,
}

/// The share of the time in which only the honest traffic runs.
const QUIET: f64 = 0.1;

/// What the host may hold more after the second phase than after the first. What each change or failure left behind would come to more.
const MORE: Held = Held {
    memory_mib: 48,
    files: 12,
    maps: 48,
    threads: 8,
};

/// What the host may hold at any moment.
const CEILING_MIB: u64 = 512;

/// Turn numbers of the second phase begin here.
const SECOND: u64 = 1_000_000;

/// Runs a soak.
///
/// # Errors
/// If it can't be set up. An invariant that was broken is in the report.
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
    let after_first = idle(&site)?;
    let (max_second, second) = phase(&site, plan, || actors::run_all(&site, length, SECOND))?;
    let after_second = idle(&site)?;
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
        dropped_by_the_kernel: dropped(&site)?,
        broken: Vec::new(),
    };
    check(&site, plan, &report);
    let broken = site.books.all_broken();
    if !broken.is_empty() {
        eprintln!("The host's log:\n{}", site.host.log());
    }
    Ok(Report { broken, ..report })
}

/// Runs the honest traffic while `rest` lasts. Gives the most that the host held, and how the traffic fared.
fn phase(site: &Site, plan: &Plan, rest: impl FnOnce()) -> Result<(Held, Honest)> {
    let stop = Stop::default();
    let latencies: Latencies = Mutex::new(Histogram::new());
    let mut most = Held::default();
    let mut traffic = None;
    std::thread::scope(|threads| {
        let _all = StopOnDrop(&stop);
        let (stop, latencies) = (&stop, &latencies);
        let counted = threads.spawn(move || honest::traffic(site, stop, plan.rate));
        let callers = [site.host.udp(at::WATCHER), site.host.tcp(at::WATCHER)];
        let mut others: Vec<_> = callers
            .into_iter()
            .map(|caller| {
                threads.spawn(move || honest::watch_generations(site, caller, stop, latencies))
            })
            .collect();
        others.push(threads.spawn(move || honest::call(site, stop, latencies)));
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

/// Looks at the host each second.
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

/// What the host holds when the connections of a phase are gone: it closes what its clients closed within moments.
fn idle(site: &Site) -> Result<Held> {
    let mut last = Held::of(site.host.pid())?;
    let mut same = 0;
    wait::until("the host has closed what its clients closed", || {
        let now = Held::of(site.host.pid()).ok()?;
        same = if now.files >= last.files { same + 1 } else { 0 };
        last = now;
        (same > 200).then_some(now)
    });
    Ok(last)
}

fn check(site: &Site, plan: &Plan, report: &Report) {
    let (was, is) = (report.after_first, report.after_second);
    let grown = [
        ("MiB", is.memory_mib, was.memory_mib + MORE.memory_mib),
        (
            "descriptors",
            is.files as u64,
            (was.files + MORE.files) as u64,
        ),
        ("mappings", is.maps as u64, (was.maps + MORE.maps) as u64),
        (
            "threads",
            is.threads as u64,
            (was.threads + MORE.threads) as u64,
        ),
    ];
    for (what, is, bound) in grown {
        if is > bound {
            let text = format!(
                "the host holds {is} {what} after the second phase; {bound} were expected at most: {was:?}"
            );
            site.books.broken(text);
        }
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
    let count = |what: &str| report.counts.get(what).copied().unwrap_or_default();
    let turned_away = count(honest::TURNED_AWAY);
    let asked = count("requests of the counted traffic");
    if turned_away * 1000 > asked * plan.turned_away {
        site.books.broken(format!(
            "{turned_away} honest requests were turned away; {} of a thousand may be",
            plan.turned_away
        ));
    }
    let lost = count("lost");
    if lost > report.dropped_by_the_kernel {
        site.books.broken(format!(
            "{lost} requests of the counted traffic have no answer, but the kernel dropped {} datagrams",
            report.dropped_by_the_kernel
        ));
    }
    for actor in actors::names() {
        let needs_disk = actor == "disk filled" && !report.disk;
        if count(actor) == 0 && !needs_disk {
            site.books.broken(format!("never done: {actor}"));
        }
    }
}

/// Datagrams for the host that found its sockets full.
fn dropped(site: &Site) -> Result<u64> {
    let sip = site.host.sip();
    match sip.ip() {
        IpAddr::V4(ip) => kernel_drops(ip, sip.port()),
        IpAddr::V6(_) => kernel_drops(Ipv4Addr::LOCALHOST, sip.port()),
    }
}
