//! Memory of idle connections.

use std::fmt;
use std::process::Command;

use anyhow::{Context, Error, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::super::pinned::pin;
use super::super::plan::Server;
use super::servers::{EdgeServer, Site};
use super::wire::Wire;

/// Number of connections.
const CONNECTIONS: usize = 10_000;
/// The same in a quick run.
const FEW: usize = 1_000;

/// The result for one server and transport.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Idle {
    pub(crate) server: Server,
    pub(crate) wire: Wire,
    #[serde(flatten)]
    pub(crate) report: Report,
}

/// The generator's report; the generator documents the meaning of each figure.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) connections: usize,
    pub(crate) closed: usize,
    pub(crate) seconds: f64,
    pub(crate) before_bytes: u64,
    pub(crate) after_bytes: u64,
    pub(crate) closed_bytes: u64,
    pub(crate) bytes_each: f64,
}

/// Measures each server with a new process for each transport. What fails is left out, and its error noted.
pub(crate) fn measure(servers: &[Server], site: &Site<'_>, errors: &mut Vec<Error>) -> Vec<Idle> {
    let mut all = Vec::new();
    for server in servers {
        let wires: &[Wire] = match server {
            Server::Portcullis | Server::Kamailio => &[Wire::Tcp, Wire::Tls, Wire::Wss],
            Server::KamailioBare | Server::Echo | Server::PortcullisStateless => &[],
        };
        for wire in wires {
            let one = one(*server, *wire, site);
            let one = one.with_context(|| format!("{server}: idle connections over {wire}"));
            match one {
                Ok(one) => all.push(one),
                Err(error) => errors.push(error),
            }
        }
    }
    all
}

fn one(server: Server, wire: Wire, site: &Site<'_>) -> Result<Idle> {
    let running = EdgeServer::start(server, site)?;
    let pace = site.pace;
    let connections = if pace.quick { FEW } else { CONNECTIONS };
    let mut command = Command::new(&site.programs.load);
    command
        .args(["idle", "--transport", wire.name(), "--target"])
        .arg(running.address(wire).to_string())
        .args(["--connections", &connections.to_string()])
        .args(["--watch", &running.pid().to_string()]);
    let output = pin(pace.load_core, &command)
        .output()
        .context("cannot run the generator")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let report: Report =
        serde_json::from_slice(&output.stdout).context("the generator's report cannot be read")?;
    ensure!(
        report.closed == 0,
        "{} of {connections} connections were closed by the server",
        report.closed
    );
    eprintln!(
        "{server}: {connections} idle connections over {wire}: {:.1} KiB each",
        report.bytes_each / 1024.0
    );
    Ok(Idle {
        server,
        wire,
        report,
    })
}

/// Writes the results as a table.
pub(crate) fn table(all: &[Idle], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "\nIdle connections, each after one OPTIONS: memory of the server's processes, without that of the kernel for sockets"
    )?;
    writeln!(
        f,
        "{:<4} {:<14} {:>12} {:>10} {:>12} {:>12} {:>18}",
        "", "", "connections", "KiB each", "before, MiB", "with, MiB", "closed again, MiB"
    )?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for Idle {
        server,
        wire,
        report,
    } in all
    {
        writeln!(
            f,
            "{:<4} {:<14} {:>12} {:>10.1} {:>12.1} {:>12.1} {:>18.1}",
            wire.to_string(),
            server.to_string(),
            report.connections,
            report.bytes_each / 1024.0,
            mib(report.before_bytes),
            mib(report.after_bytes),
            mib(report.closed_bytes)
        )?;
    }
    Ok(())
}
