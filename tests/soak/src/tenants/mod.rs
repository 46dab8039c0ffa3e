//! A host with many tenants, each with a policy file of its own: requests to all of them in random order, while the files of random
//! tenants are replaced. There are two rounds of the same length; the resources of the host are compared after each.

pub(crate) mod policies;
mod report;
mod site;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portcullis_load::{Mode, Plan as Load};

pub(crate) use report::Report;

use self::site::{Site, at};
use crate::honest;
use crate::process::{Held, dropped_by_kernel, map_limit, sample};
use crate::report::explain;
use crate::rounds::Rounds;
use crate::times::Times;
use crate::turns::{Books, Stop, StopOnDrop};

/// Parameters of a soak with many tenants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Number of tenants.
    pub(crate) tenants: u32,
    /// Length of both rounds together.
    pub(crate) length: Duration,
    /// Requests per second of the counted traffic, to all tenants together.
    pub(crate) rate: u64,
    /// Requests per thousand that may be rejected for overload.
    pub(crate) turned_away: u64,
}

/// Largest increase of the host's resources from the first round to the second, apart from the generations that it keeps.
const MORE: Held = Held {
    memory_mib: 32,
    files: 12,
    maps: 64,
    threads: 8,
};

/// Largest number of descriptors of a host without tenants. A generation may add one.
const FILES_WITHOUT_TENANTS: u64 = 128;

/// Number of generations that a host keeps for each seat besides the active one.
const KEPT: u32 = 4;

/// Largest resources of a kept generation: memory and mappings.
const KEPT_KIB: u64 = 64;
const KEPT_MAPS: u64 = 6;

/// Largest resources of a tenant with a single generation: mappings for its code and its sandboxes.
const TENANT_MAPS: u64 = 7;

/// Runs the soak.
///
/// # Errors
/// If it cannot be set up. Broken invariants are in the report.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let most_maps = u64::from(plan.tenants) * (TENANT_MAPS + u64::from(KEPT) * KEPT_MAPS);
    let may = map_limit()?;
    ensure!(
        most_maps <= may,
        "a host with {} tenants, each with {KEPT} generations to go back to, needs {most_maps} memory maps, and the system allows a \
         process {may}: `sysctl -w vm.max_map_count={most_maps}` as root",
        plan.tenants
    );
    let begun = Instant::now();
    let site = Site::start(plan.tenants)?;
    let pid = site.host.pid();
    let started = Held::of(pid)?;
    eprintln!(
        "{} tenants are ready after {:.1} s. The host runs with {started:?}.",
        plan.tenants,
        site.started_in.as_secs_f64()
    );
    let mut changes = Changes::new(plan.tenants);
    let mut kept = [0; 2];
    let rounds = Rounds::run(pid, started, |nth| {
        let most = round(&site, plan, &mut changes)?;
        kept[nth] = changes.kept();
        Ok(most)
    })?;
    let report = Report {
        tenants: plan.tenants,
        seconds: begun.elapsed().as_secs(),
        start_seconds: site.started_in.as_secs_f64(),
        rate: plan.rate,
        live_ms: changes.live(),
        rounds,
        counts: site.books.counts(),
        dropped_by_the_kernel: dropped_by_kernel(site.host.sip())?,
        broken: Vec::new(),
    };
    check(&site.books, plan, &report, kept);
    let broken = site.books.all_broken();
    explain(&site.host, &broken);
    Ok(Report { broken, ..report })
}

/// Runs one round. Returns the largest resources of the host.
fn round(site: &Site, plan: &Plan, changes: &mut Changes) -> Result<Held> {
    let stop = Stop::default();
    std::thread::scope(|threads| {
        let _all = StopOnDrop(&stop);
        let stop = &stop;
        let traffic = threads.spawn(move || traffic(site, plan, stop));
        let sampler = threads.spawn(move || sample(site.host.pid(), &site.books, stop));
        let changer = threads.spawn(move || changes.make(site, stop));
        stop.pause(plan.length / 2);
        stop.stop();
        let ended = changer.join().ok().context("the changes came to no end")?;
        if let Err(error) = ended {
            site.books.broken(format!("{error:#}"));
        }
        let ended = traffic.join().ok().context("the traffic came to no end")?;
        ended?;
        sampler.join().ok().context("the host was not looked at")
    })
}

/// Requests to random tenants at a fixed rate, each of which must be answered once.
fn traffic(site: &Site, plan: &Plan, stop: &Stop) -> Result<()> {
    let first = site.host.lease().ip(at::TRAFFIC);
    let mut load = Load::new(site.host.sip(), Mode::Reject, first);
    load.rate = Some(plan.rate);
    load.tenants = Some(plan.tenants);
    honest::counted(load, &site.books, stop).map(drop)
}

/// Compares the resources of the host with the bounds. `kept` has the numbers of generations kept after each round.
fn check(books: &Books, plan: &Plan, report: &Report, kept: [u64; 2]) {
    let [kept_first, kept_second] = kept;
    let more_kept = kept_second - kept_first;
    let grown = report.rounds.grown(Held {
        memory_mib: MORE.memory_mib + more_kept * KEPT_KIB / 1024,
        files: MORE.files + more_kept as usize,
        maps: MORE.maps + (more_kept * KEPT_MAPS) as usize,
        ..MORE
    });
    for text in grown {
        books.broken(text);
    }
    let most_files = FILES_WITHOUT_TENANTS + u64::from(plan.tenants) + kept_second;
    let held_files = report.rounds.most.files;
    if held_files as u64 > most_files {
        books.broken(format!(
            "the host held {held_files} descriptors; {most_files} were expected at most, one for each generation and {FILES_WITHOUT_TENANTS} others"
        ));
    }
    honest::check(books, plan.turned_away, report.dropped_by_the_kernel);
    if report.live_ms.is_none() {
        books.broken("no policy file was replaced".to_owned());
    }
}

/// The changes of policy files.
#[derive(Debug)]
struct Changes {
    /// The version of each tenant's file.
    versions: Vec<u32>,
    /// Time until each change was live.
    took: Vec<Duration>,
    random: u64,
}

impl Changes {
    fn new(tenants: u32) -> Self {
        Self {
            versions: vec![0; tenants as usize],
            took: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Replaces the files of random tenants, one after the other.
    fn make(&mut self, site: &Site, stop: &Stop) -> Result<()> {
        let mut caller = site.host.udp(at::WATCHER);
        while !stop.is_stopped() {
            let tenant = self.random_tenant();
            let version = self.versions[tenant] + 1;
            let took = site.replace(&mut caller, tenant as u32, version)?;
            self.versions[tenant] = version;
            self.took.push(took);
            site.books.count("policy files replaced");
        }
        if !caller.hears_nothing() {
            site.books
                .broken("a request that looks for a version was answered twice".to_owned());
        }
        Ok(())
    }

    fn random_tenant(&mut self) -> usize {
        // xorshift64: the same tenants in every run.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % self.versions.len() as u64) as usize
    }

    /// Number of generations that the host keeps besides the first of each tenant.
    fn kept(&self) -> u64 {
        let kept = self.versions.iter().map(|&version| version.min(KEPT));
        kept.map(u64::from).sum()
    }

    /// Times until changes were live.
    fn live(&self) -> Option<Times> {
        Times::of(self.took.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_keeps_a_bounded_number_of_generations() {
        let mut changes = Changes::new(3);
        assert_eq!((changes.kept(), changes.live()), (0, None));
        changes.versions = vec![0, 1, 100];
        assert_eq!(changes.kept(), u64::from(1 + KEPT));
        changes.took = [300, 100, 200].map(Duration::from_millis).to_vec();
        let live = changes.live().unwrap();
        assert_eq!((live.median, live.worst), (200.0, 300.0));
    }

    #[test]
    fn every_tenant_has_its_turn() {
        let mut changes = Changes::new(50);
        let mut seen = [false; 50];
        for _ in 0..2_000 {
            seen[changes.random_tenant()] = true;
        }
        assert_eq!(seen, [true; 50]);
    }
}
