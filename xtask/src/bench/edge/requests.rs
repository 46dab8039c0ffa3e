//! Requests and calls over connections: TCP, TLS and WebSocket.

use std::fmt;
use std::process::Command;

use anyhow::{Context, Error, Result};
use serde::Serialize;

use super::super::figures::median;
use super::super::load::{self, Report};
use super::super::plan::{Server, Work};
use super::servers::{EdgeServer, Site};
use super::wire::Wire;

/// What is measured of each server, in this order.
const TASKS: [(Wire, Work); 6] = [
    (Wire::Tcp, Work::Reject),
    (Wire::Tls, Work::Reject),
    (Wire::Wss, Work::Reject),
    (Wire::Tcp, Work::Call),
    (Wire::Tls, Work::Call),
    (Wire::Wss, Work::Call),
];

/// The result of one server with one task; medians of the rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Asked {
    pub(crate) server: Server,
    /// Between caller and server. The server relays over UDP.
    pub(crate) wire: Wire,
    pub(crate) work: Work,
    /// CPU time per request or call, in user mode and in the kernel, in microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    /// CPU time of each round.
    pub(crate) cpu_us_rounds: Vec<f64>,
    pub(crate) per_second: f64,
    pub(crate) p99_us: f64,
    /// Share of one core that the server used.
    pub(crate) cores: f64,
    pub(crate) generator_idle: f64,
    pub(crate) memory_bytes: u64,
}

/// What one server did with one task in each round.
type Rounds = ((Server, Wire, Work), Vec<Report>);

/// Measures each server in each round. A server that fails is left out, and its error noted.
pub(crate) fn measure(servers: &[Server], site: &Site<'_>, errors: &mut Vec<Error>) -> Vec<Asked> {
    let tasks = servers
        .iter()
        .flat_map(|server| TASKS.map(|(wire, work)| (*server, wire, work)));
    // Without STOCK, Kamailio has no WebSocket.
    let tasks =
        tasks.filter(|(server, wire, _)| *server != Server::KamailioBare || *wire != Wire::Wss);
    let mut rounds: Vec<Rounds> = tasks.map(|task| (task, Vec::new())).collect();
    let mut servers = servers.to_vec();
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
    whole.map(|(task, reports)| of(*task, reports)).collect()
}

fn round(server: Server, site: &Site<'_>, rounds: &mut [Rounds]) -> Result<()> {
    let running = EdgeServer::start(server, site)?;
    for ((of, wire, work), reports) in rounds {
        if *of != server {
            continue;
        }
        let report = one(*wire, *work, &running, site)
            .with_context(|| format!("{server}: {work} over {wire}"))?;
        eprintln!(
            "{server}: {work} over {wire}: {:.2} µs",
            report.window.server.cpu_us
        );
        reports.push(report);
    }
    Ok(())
}

/// Puts a running server under load over this transport.
fn one(wire: Wire, work: Work, server: &EdgeServer, site: &Site<'_>) -> Result<Report> {
    let pace = site.pace;
    let mut command = Command::new(&site.programs.load);
    command
        .args(["run", "--transport", wire.name()])
        .args(["--target", &server.address(wire).to_string()])
        .args(["--mode", work.mode(), "--source", work.first_source()])
        .args(["--sources", &pace.sources.to_string()])
        .args(["--outstanding", &pace.outstanding.to_string()])
        .args(["--warm-up", &pace.warm_up_seconds.to_string()])
        .args(["--seconds", &pace.seconds.to_string()])
        .args(["--watch", &server.pid().to_string()]);
    if work.has_callee() {
        command.args(["--sink", &server.callee().to_string()]);
    }
    load::report(&command, pace)
}

fn of((server, wire, work): (Server, Wire, Work), reports: &[Report]) -> Asked {
    let over = |pick: &dyn Fn(&Report) -> f64| median(reports.iter().map(pick).collect());
    Asked {
        server,
        wire,
        work,
        cpu_us: over(&|r| r.window.server.cpu_us),
        user_us: over(&|r| r.window.server.user_us),
        system_us: over(&|r| r.window.server.system_us),
        cpu_us_rounds: reports.iter().map(|r| r.window.server.cpu_us).collect(),
        per_second: over(&|r| r.window.per_second),
        p99_us: over(&|r| r.window.latency.p99_us),
        cores: over(&|r| r.window.server.cores),
        generator_idle: over(&|r| r.window.generator_idle),
        memory_bytes: over(&|r| r.window.server.memory_bytes as f64) as u64,
    }
}

/// The CPU time of a task against that of another one: the median of the ratios of each round.
pub(crate) fn ratio(
    all: &[Asked],
    work: Work,
    of: (Server, Wire),
    to: (Server, Wire),
) -> Option<f64> {
    let find = |(server, wire)| {
        let is_it = |one: &&Asked| (one.server, one.wire, one.work) == (server, wire, work);
        all.iter().find(is_it)
    };
    let (of, to) = (find(of)?, find(to)?);
    let rounds = of.cpu_us_rounds.iter().zip(&to.cpu_us_rounds);
    Some(median(rounds.map(|(of, to)| of / to).collect()))
}

/// Writes the results as a table.
pub(crate) fn table(all: &[Asked], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "\nOver connections, one for each source; server's core full; calls are relayed over UDP"
    )?;
    writeln!(
        f,
        "{:<20} {:<4} {:<14} {:>8} {:>7} {:>7} {:>15} {:>12} {:>8} {:>8}",
        "", "", "", "CPU µs", "user", "system", "lowest-most", "requests/s", "p99 ms", "MiB"
    )?;
    for one in all {
        let cpu = || one.cpu_us_rounds.iter().copied();
        let (lowest, most) = (
            cpu().fold(f64::INFINITY, f64::min),
            cpu().fold(0.0, f64::max),
        );
        let is_starved = one.generator_idle < 0.02 && one.cores < 0.95;
        writeln!(
            f,
            "{:<20} {:<4} {:<14} {:>8.2} {:>7.2} {:>7.2} {:>15} {:>12.0} {:>8.2} {:>8.1}{}",
            one.work.to_string(),
            one.wire.to_string(),
            one.server.to_string(),
            one.cpu_us,
            one.user_us,
            one.system_us,
            format!("{lowest:.2}-{most:.2}"),
            one.per_second,
            one.p99_us / 1000.0,
            one.memory_bytes as f64 / f64::from(1 << 20),
            if is_starved {
                "  (generator at its limit)"
            } else {
                ""
            }
        )?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A result in which only the CPU time matters.
    pub(crate) fn asked(server: Server, wire: Wire, work: Work, rounds: &[f64]) -> Asked {
        Asked {
            server,
            wire,
            work,
            cpu_us: median(rounds.to_vec()),
            user_us: 1.0,
            system_us: 1.0,
            cpu_us_rounds: rounds.to_vec(),
            per_second: 1.0,
            p99_us: 1.0,
            cores: 1.0,
            generator_idle: 0.5,
            memory_bytes: 1 << 20,
        }
    }

    #[test]
    fn a_ratio_compares_the_same_rounds() {
        let (ours, theirs) = (Server::Portcullis, Server::Kamailio);
        let all = [
            asked(ours, Wire::Tls, Work::Call, &[2.0, 8.0, 3.0]),
            asked(theirs, Wire::Tls, Work::Call, &[4.0, 8.0, 30.0]),
        ];
        let of = |work, wire| ratio(&all, work, (ours, wire), (theirs, Wire::Tls));
        assert_eq!(of(Work::Call, Wire::Tls), Some(0.5));
        assert_eq!(of(Work::Call, Wire::Tcp), None);
        assert_eq!(of(Work::Reject, Wire::Tls), None);
    }
}
