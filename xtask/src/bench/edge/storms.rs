//! Requests over UDP beside a storm of handshakes.

use std::fmt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use serde::Serialize;

use super::super::figures::median;
use super::super::load::{self, Report};
use super::super::plan::{STEADY, Server};
use super::generator;
use super::servers::{EdgeServer, Site};
use super::wire::Wire;

/// Connections that the storm has in progress at any time.
const AT_ONCE: u32 = 128;

/// How long the storm lasts before requests are sent, and after them.
const AROUND: Duration = Duration::from_millis(500);

/// The result of one server; medians of the rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Storm {
    pub(crate) server: Server,
    /// Requests per second over UDP, each answered 401.
    pub(crate) per_second: u64,
    /// Their latencies alone, in microseconds.
    pub(crate) quiet_p50_us: f64,
    pub(crate) quiet_p99_us: f64,
    /// The same beside the storm.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// The slowest one of all rounds.
    pub(crate) most_us: f64,
    /// Ratio of the p99 beside the storm to that alone, of one round each.
    pub(crate) p99_ratio: f64,
    /// Requests beside the storm in all rounds, and those without an answer.
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// Full handshakes per second of the storm, which has no pause.
    pub(crate) handshakes_per_second: f64,
    /// Those that failed in all rounds.
    pub(crate) handshakes_failed: u64,
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
            quiet.window.latency.p99_us, beside.window.latency.p99_us, storm.window.per_second
        );
        rounds.push((quiet, beside, storm));
    }
    Ok(of(server, &rounds))
}

/// Requests over UDP in small bursts, between which other programs have the core.
fn requests(server: &EdgeServer, site: &Site<'_>) -> Result<Report> {
    let pace = site.pace;
    let mut command = Command::new(&site.programs.load);
    command
        .args(["run", "--mode", "reject", "--source", "127.1.0.1"])
        .args(["--target", &server.plain().to_string()])
        .args(["--sources", &pace.sources.to_string()])
        .args(["--outstanding", "256", "--patience", "2000"])
        .args(["--rate", &STEADY.to_string()])
        .args(["--warm-up", &pace.warm_up_seconds.to_string()])
        .args(["--seconds", &pace.seconds.to_string()])
        .args(["--watch", &server.pid().to_string()]);
    load::unchecked(&command, pace)
}

/// The same requests beside a storm. Its generator has the core only while nothing else needs it: otherwise the generator of requests would be slower
/// itself.
fn beside(server: &EdgeServer, site: &Site<'_>) -> Result<(Report, generator::Report)> {
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
        let report = requests(server, site);
        let storm = storm
            .join()
            .ok()
            .context("the thread of the storm has panicked")?;
        Ok((report?, storm?))
    })
}

fn of(server: Server, rounds: &[(Report, Report, generator::Report)]) -> Storm {
    type Round = (Report, Report, generator::Report);
    let over = |pick: &dyn Fn(&Round) -> f64| median(rounds.iter().map(pick).collect());
    let most = rounds
        .iter()
        .map(|(_, beside, _)| beside.window.latency.max_us);
    Storm {
        server,
        per_second: STEADY,
        quiet_p50_us: over(&|(quiet, ..)| quiet.window.latency.p50_us),
        quiet_p99_us: over(&|(quiet, ..)| quiet.window.latency.p99_us),
        p50_us: over(&|(_, beside, _)| beside.window.latency.p50_us),
        p99_us: over(&|(_, beside, _)| beside.window.latency.p99_us),
        most_us: most.fold(0.0, f64::max),
        p99_ratio: over(&|(quiet, beside, _)| {
            beside.window.latency.p99_us / quiet.window.latency.p99_us
        }),
        sent: rounds.iter().map(|(_, beside, _)| beside.sent).sum(),
        lost: rounds.iter().map(|(_, beside, _)| beside.lost).sum(),
        handshakes_per_second: over(&|(.., storm)| storm.window.per_second),
        handshakes_failed: rounds.iter().map(|(.., storm)| storm.failed).sum(),
    }
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: 401 over UDP at {} a second beside {:.0} full handshakes a second on the same core ({} failed): p50 {:.2} ms, p99 {:.2} ms, \
             the slowest {:.1} ms; {:.2} and {:.2} ms alone; {} of {} lost",
            self.server,
            self.per_second,
            self.handshakes_per_second,
            self.handshakes_failed,
            self.p50_us / 1000.0,
            self.p99_us / 1000.0,
            self.most_us / 1000.0,
            self.quiet_p50_us / 1000.0,
            self.quiet_p99_us / 1000.0,
            self.lost,
            self.sent
        )
    }
}
