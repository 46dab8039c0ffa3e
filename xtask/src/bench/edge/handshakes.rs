//! Handshakes of TLS: connections that are opened, and closed again.

use std::fmt;
use std::process::Command;

use anyhow::{Context, Error, Result, ensure};
use serde::Serialize;

use super::super::figures::median;
use super::super::plan::Server;
use super::generator::{self, Report};
use super::servers::{EdgeServer, Site};
use super::wire::{Version, Wire};

/// The result of one server; medians of the rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Handshaken {
    pub(crate) server: Server,
    pub(crate) version: Version,
    /// Whether sessions are resumed. Otherwise each handshake has the whole work.
    pub(crate) resumed: bool,
    /// Cipher suite, as the server has chosen it.
    pub(crate) suite: String,
    /// CPU time of the server for a connection, from its acceptance to its end, in microseconds.
    pub(crate) cpu_us: f64,
    /// The same of each round.
    pub(crate) cpu_us_rounds: Vec<f64>,
    /// How many of them fill one core for a second: one million divided by `cpu_us`.
    pub(crate) per_core_second: f64,
    /// Connections per second that the server did on its one core.
    pub(crate) per_second: f64,
    /// From the beginning of a connection until messages can be sent.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Share of the server's core in use.
    pub(crate) cores: f64,
    pub(crate) generator_idle: f64,
}

/// Version, and whether sessions are resumed.
const KINDS: [(Version, bool); 4] = [
    (Version::V13, false),
    (Version::V13, true),
    (Version::V12, false),
    (Version::V12, true),
];

/// What one server did of one kind in each round.
type Rounds = ((Server, Version, bool), Vec<Report>);

/// Measures each server in each round. A server that fails is left out, and its error noted.
pub(crate) fn measure(
    servers: &[Server],
    site: &Site<'_>,
    errors: &mut Vec<Error>,
) -> Vec<Handshaken> {
    let mut servers = servers.to_vec();
    // Both have the same module.
    servers.retain(|server| *server != Server::KamailioBare);
    let kinds = servers
        .iter()
        .flat_map(|server| KINDS.map(|(version, resumed)| (*server, version, resumed)));
    let mut rounds: Vec<Rounds> = kinds.map(|kind| (kind, Vec::new())).collect();
    for _ in 0..site.pace.rounds {
        servers.retain(|server| match round(*server, site, &mut rounds) {
            Ok(()) => true,
            Err(error) => {
                errors.push(error);
                false
            }
        });
    }
    let whole = rounds
        .iter()
        .filter(|(_, reports)| reports.len() == site.pace.rounds);
    whole.map(|(kind, reports)| of(*kind, reports)).collect()
}

fn round(server: Server, site: &Site<'_>, rounds: &mut [Rounds]) -> Result<()> {
    let running = EdgeServer::start(server, site)?;
    for ((of, version, resumed), reports) in rounds {
        if *of != server {
            continue;
        }
        let how = if *resumed { "resumed" } else { "full" };
        let report = one(*version, *resumed, &running, site)
            .with_context(|| format!("{server}: {how} handshakes, {version}"))?;
        let cpu_us = report.window.server.map_or(f64::NAN, |usage| usage.cpu_us);
        eprintln!("{server}: {how} handshakes, {version}: {cpu_us:.1} µs");
        reports.push(report);
    }
    Ok(())
}

fn one(version: Version, resumed: bool, server: &EdgeServer, site: &Site<'_>) -> Result<Report> {
    let pace = site.pace;
    let mut command = Command::new(&site.programs.load);
    command
        .args(["handshakes", "--target"])
        .arg(server.address(Wire::Tls).to_string())
        .args(["--tls", version.name()])
        .args(["--warm-up", &pace.warm_up_seconds.to_string()])
        .args(["--seconds", &pace.seconds.to_string()])
        .args(["--watch", &server.pid().to_string()]);
    if resumed {
        command.arg("--resume");
    }
    let report = generator::report(&command, pace)?;
    report.check()?;
    let Report { window, .. } = &report;
    let other = if resumed { window.full } else { window.resumed };
    ensure!(
        other * 100 <= window.full + window.resumed,
        "{} handshakes were full, and {} resumed sessions",
        window.full,
        window.resumed
    );
    ensure!(
        window.server.is_some(),
        "the generator did not measure the server"
    );
    Ok(report)
}

fn of((server, version, resumed): (Server, Version, bool), reports: &[Report]) -> Handshaken {
    let over = |pick: &dyn Fn(&Report) -> f64| median(reports.iter().map(pick).collect());
    let usage = |report: &Report| report.window.server.map_or(f64::NAN, |usage| usage.cpu_us);
    let cpu_us = over(&usage);
    let suite = reports.iter().find_map(|report| report.tls.clone());
    Handshaken {
        server,
        version,
        resumed,
        suite: suite.unwrap_or_default(),
        cpu_us,
        cpu_us_rounds: reports.iter().map(usage).collect(),
        per_core_second: 1e6 / cpu_us,
        per_second: over(&|r| r.window.per_second),
        p50_us: over(&|r| r.window.latency.p50_us),
        p99_us: over(&|r| r.window.latency.p99_us),
        cores: over(&|r| r.window.server.map_or(f64::NAN, |usage| usage.cores)),
        generator_idle: over(&|r| r.window.generator_idle),
    }
}

/// The CPU time of a handshake against Kamailio's: the median of the ratios of each round.
pub(crate) fn against_kamailio(all: &[Handshaken], version: Version, resumed: bool) -> Option<f64> {
    let find = |server| {
        let is_it = |one: &&Handshaken| {
            (one.server, one.version, one.resumed) == (server, version, resumed)
        };
        all.iter().find(is_it)
    };
    let (ours, theirs) = (find(Server::Portcullis)?, find(Server::Kamailio)?);
    let rounds = ours.cpu_us_rounds.iter().zip(&theirs.cpu_us_rounds);
    Some(median(rounds.map(|(of, to)| of / to).collect()))
}

/// Writes the results as a table.
pub(crate) fn table(all: &[Handshaken], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "\nHandshakes (ECDSA P-256, X25519, AES-128-GCM): each connection is accepted, greeted and closed"
    )?;
    writeln!(
        f,
        "{:<8} {:<8} {:<14} {:>8} {:>15} {:>13} {:>8} {:>8}",
        "", "", "", "CPU µs", "a core-second", "a second", "p50 ms", "p99 ms"
    )?;
    for one in all {
        writeln!(
            f,
            "{:<8} {:<8} {:<14} {:>8.1} {:>15.0} {:>13.0} {:>8.2} {:>8.2}{}",
            one.version.to_string(),
            if one.resumed { "resumed" } else { "full" },
            one.server.to_string(),
            one.cpu_us,
            one.per_core_second,
            one.per_second,
            one.p50_us / 1000.0,
            one.p99_us / 1000.0,
            if one.cores < 0.9 {
                "  (server's core not full)"
            } else {
                ""
            }
        )?;
    }
    Ok(())
}
