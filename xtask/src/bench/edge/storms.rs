//! Requests over UDP beside a storm of handshakes.
//!
//! Latencies are those of single requests (`portcullis-load probe`), which end when the system has received the response: the generators share their
//! core, so what the storm's own generator takes from the one of requests is not counted as latency of the server. The requests themselves, small
//! bursts of them, are load, and none of them may be lost.

use std::fmt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use serde::{Deserialize, Serialize};

use super::super::figures::median;
use super::super::load::{self, Latency, Report};
use super::super::pinned::pin;
use super::super::plan::{STEADY, Server};
use super::generator;
use super::servers::{EdgeServer, Site};
use super::wire::Wire;

/// Connections that the storm has in progress at any time.
const AT_ONCE: u32 = 128;

/// How long the storm lasts before requests are sent, and after them.
const AROUND: Duration = Duration::from_millis(500);

/// Share of the server's core in use from which on a storm is one: less means that its generator, and not the server, limits it.
const FULL: f64 = 0.9;

/// The result of one server; medians of the rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Storm {
    pub(crate) server: Server,
    /// Requests per second over UDP, each answered 401.
    pub(crate) per_second: u64,
    /// Latencies of single requests beside them, without the storm, in microseconds.
    pub(crate) quiet_p50_us: f64,
    pub(crate) quiet_p99_us: f64,
    /// The same beside the storm.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// The slowest one of all rounds.
    pub(crate) most_us: f64,
    /// Ratio of the p99 beside the storm to that without, of one round each.
    pub(crate) p99_ratio: f64,
    /// The largest of these.
    pub(crate) worst_p99_ratio: f64,
    /// p99 of the requests in bursts, as their generator saw it, without the storm and beside it.
    pub(crate) quiet_bursts_p99_us: f64,
    pub(crate) bursts_p99_us: f64,
    /// Requests beside the storm in all rounds, and those without an answer.
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// Full handshakes per second of the storm, which has no pause.
    pub(crate) handshakes_per_second: f64,
    /// Those that failed in all rounds.
    pub(crate) handshakes_failed: u64,
    /// Share of the server's core in use beside the storm.
    pub(crate) cores: f64,
}

/// What one round came to.
struct Round {
    quiet: Traffic,
    beside: Traffic,
    storm: generator::Report,
}

/// Requests in bursts, and single ones.
struct Traffic {
    bursts: Report,
    single: Single,
}

/// The report on single requests; the generator documents the meaning of each figure.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Single {
    sent: u64,
    lost: u64,
    latency: Latency,
}

/// Measures each server alone and beside the storm, in each round. What fails is left out, and its error noted.
pub(crate) fn measure(servers: &[Server], site: &Site<'_>, errors: &mut Vec<Error>) -> Vec<Storm> {
    let mut all = Vec::new();
    for server in servers {
        // Both have the same module for TLS.
        if *server == Server::KamailioBare {
            continue;
        }
        match one(*server, site) {
            Ok(one) => all.push(one),
            Err(error) => {
                errors.push(error.context(format!("{server}: requests beside handshakes")));
            }
        }
    }
    all
}

fn one(server: Server, site: &Site<'_>) -> Result<Storm> {
    let running = EdgeServer::start(server, site)?;
    let mut rounds = Vec::new();
    for _ in 0..site.pace.rounds {
        let quiet = requests(&running, site)?;
        let (beside, storm) = beside(&running, site)?;
        eprintln!(
            "{server}: p99 {:.0} µs alone, {:.0} µs beside {:.0} handshakes a second",
            quiet.single.latency.p99_us, beside.single.latency.p99_us, storm.window.per_second
        );
        rounds.push(Round {
            quiet,
            beside,
            storm,
        });
    }
    Ok(of(server, &rounds))
}

/// Requests over UDP: small bursts, between which other programs have the core, and single ones.
fn requests(server: &EdgeServer, site: &Site<'_>) -> Result<Traffic> {
    let pace = site.pace;
    let target = server.plain().to_string();
    let warm_up = pace.warm_up_seconds.to_string();
    let seconds = pace.seconds.to_string();
    let mut bursts = Command::new(&site.programs.load);
    bursts
        .args(["run", "--mode", "reject", "--source", "127.1.0.1"])
        .args(["--target", &target])
        .args(["--sources", &pace.sources.to_string()])
        .args(["--outstanding", "256", "--patience", "2000"])
        .args(["--rate", &STEADY.to_string()])
        .args(["--warm-up", &warm_up, "--seconds", &seconds])
        .args(["--watch", &server.pid().to_string()]);
    let mut single = Command::new(&site.programs.load);
    single.args(["probe", "--target", &target]).args([
        "--warm-up",
        &warm_up,
        "--seconds",
        &seconds,
    ]);
    thread::scope(|threads| {
        let single = threads.spawn(|| {
            let output = pin(pace.load_core, &single).output();
            let output = output.context("cannot run the generator")?;
            if !output.status.success() {
                bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
            }
            serde_json::from_slice(&output.stdout).context("the report of single requests")
        });
        let bursts = load::unchecked(&bursts, pace);
        let single = single
            .join()
            .ok()
            .context("the thread of single requests has panicked")?;
        Ok(Traffic {
            bursts: bursts?,
            single: single?,
        })
    })
}

/// The same requests beside a storm. Its generator has the core only while nothing else needs it: otherwise the generator of requests would be slower
/// itself.
fn beside(server: &EdgeServer, site: &Site<'_>) -> Result<(Traffic, generator::Report)> {
    let pace = site.pace;
    let seconds = pace.warm_up_seconds + pace.seconds + AROUND.as_secs_f64();
    let mut command = Command::new("chrt");
    command
        .args(["--idle", "0"])
        .arg(&site.programs.load)
        .args(["handshakes", "--target"])
        .arg(server.address(Wire::Tls).to_string())
        .args(["--at-once", &AT_ONCE.to_string()])
        .args(["--warm-up", &AROUND.as_secs_f64().to_string()])
        .args(["--seconds", &seconds.to_string()]);
    thread::scope(|threads| {
        let storm = threads.spawn(|| generator::report(&command, pace));
        thread::sleep(AROUND);
        let traffic = requests(server, site);
        let storm = storm
            .join()
            .ok()
            .context("the thread of the storm has panicked")?;
        Ok((traffic?, storm?))
    })
}

fn of(server: Server, rounds: &[Round]) -> Storm {
    let over = |pick: &dyn Fn(&Round) -> f64| median(rounds.iter().map(pick).collect());
    let most = |pick: &dyn Fn(&Round) -> f64| rounds.iter().map(pick).fold(0.0, f64::max);
    let sum = |pick: &dyn Fn(&Round) -> u64| rounds.iter().map(pick).sum();
    let ratio =
        |round: &Round| round.beside.single.latency.p99_us / round.quiet.single.latency.p99_us;
    Storm {
        server,
        per_second: STEADY,
        quiet_p50_us: over(&|round| round.quiet.single.latency.p50_us),
        quiet_p99_us: over(&|round| round.quiet.single.latency.p99_us),
        p50_us: over(&|round| round.beside.single.latency.p50_us),
        p99_us: over(&|round| round.beside.single.latency.p99_us),
        most_us: most(&|round| round.beside.single.latency.max_us),
        p99_ratio: over(&ratio),
        worst_p99_ratio: most(&ratio),
        quiet_bursts_p99_us: over(&|round| round.quiet.bursts.window.latency.p99_us),
        bursts_p99_us: over(&|round| round.beside.bursts.window.latency.p99_us),
        sent: sum(&|round| round.beside.bursts.sent + round.beside.single.sent),
        lost: sum(&|round| round.beside.bursts.lost + round.beside.single.lost),
        handshakes_per_second: over(&|round| round.storm.window.per_second),
        handshakes_failed: sum(&|round| round.storm.failed),
        cores: over(&|round| round.beside.bursts.window.server.cores),
    }
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: 401 over UDP at {} a second beside {:.0} full handshakes a second on the same core ({} failed): p50 {:.3} ms, p99 {:.3} ms, \
             the slowest {:.1} ms; {:.3} and {:.3} ms alone, p99 {:.1} times as long, {:.1} in the worst round; {} of {} lost. In bursts, as their generator \
             saw it: p99 {:.2} ms, {:.2} ms alone",
            self.server,
            self.per_second,
            self.handshakes_per_second,
            self.handshakes_failed,
            self.p50_us / 1000.0,
            self.p99_us / 1000.0,
            self.most_us / 1000.0,
            self.quiet_p50_us / 1000.0,
            self.quiet_p99_us / 1000.0,
            self.p99_ratio,
            self.worst_p99_ratio,
            self.lost,
            self.sent,
            self.bursts_p99_us / 1000.0,
            self.quiet_bursts_p99_us / 1000.0
        )?;
        if self.cores < FULL {
            write!(
                f,
                ". The generator limits the storm: {:.0} % of the server's core are in use",
                self.cores * 100.0
            )?;
        }
        Ok(())
    }
}
