//! The effect of reloads on requests: the latency of 401s at a steady rate, without reloads and while the table of 100,000 rows is reloaded
//! continuously.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::beside::beside;
use super::control::Control;
use super::database::{self, Database};
use super::figures::median;
use super::load;
use super::plan::{Pace, Rows, Server, Shape, Subject, Task, Work};
use super::servers::{Programs, Running};
use crate::process::capture;

/// The result; medians of the rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Reload {
    /// Source of the rows.
    pub(crate) source: Source,
    /// Rows in the table.
    pub(crate) rows: u32,
    /// p99 latency without reloads, in microseconds.
    pub(crate) quiet_p99_us: f64,
    /// The same during continuous reloads.
    pub(crate) p99_us: f64,
    /// Ratio of the second to the first, of one round each.
    pub(crate) p99_ratio: f64,
    /// Duration of a reload during the requests.
    pub(crate) reload_seconds: f64,
    /// Number of reloads.
    pub(crate) reloads: usize,
}

/// A kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Source {
    /// A server on another core.
    #[serde(rename = "MariaDB")]
    MariaDb,
    /// A file, read in the host's own process.
    #[serde(rename = "SQLite")]
    Sqlite,
}

/// Load generator and database share a core, so the generator leaves it between its bursts.
const TASK: Task = Task {
    work: Work::Reject,
    shape: Shape::Bursts,
};

/// Measures each round without and with reloads, one after the other.
pub(crate) fn measure(
    source: Source,
    programs: &Programs,
    database: &Database,
    pace: &Pace,
) -> Result<Reload> {
    let url = database.url(database::name(Rows::Many));
    let Source::Sqlite = source else {
        return measure_from(source, &url, programs, pace);
    };
    let folder = tempfile::tempdir()?;
    let url = copied(programs, &url, folder.path())?;
    measure_from(source, &url, programs, pace)
}

/// Copies the rows of this database to an SQLite file; returns its URL.
fn copied(programs: &Programs, url: &str, folder: &Path) -> Result<String> {
    let copy = format!("sqlite:{}", folder.join("address.db").display());
    let rows = folder.join("address.csv");
    for (name, url, verb) in [("from", url, "export"), ("to", copy.as_str(), "import")] {
        let configuration = folder.join(name).with_extension("toml");
        fs::write(&configuration, format!("[database]\nurl = {url:?}\n"))?;
        let mut command = Command::new(&programs.portcullis);
        command.args(["address", verb, "--config"]);
        capture(command.arg(configuration).arg(&rows))?;
    }
    Ok(copy)
}

fn measure_from(source: Source, url: &str, programs: &Programs, pace: &Pace) -> Result<Reload> {
    let subject = Subject {
        server: Server::Portcullis,
        rows: Some(Rows::Many),
    };
    let host = Running::start(subject, pace.server_core, programs, Some(url))?;
    let control = Control::new(host.control);
    let (mut quiet, mut with_reloads, mut reloads) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pace.rounds {
        let p99 = || {
            let report = load::measure(TASK, &host, programs, pace)?;
            anyhow::Ok(report.window.latency.p99_us)
        };
        quiet.push(p99()?);
        let (p99, seconds) = beside(|| reload(&control), p99)?;
        with_reloads.push(p99);
        reloads.extend(seconds);
        eprintln!(
            "reload from {source}: p99 {:.0} µs quiet, {p99:.0} µs beside reloads",
            quiet.last().copied().unwrap_or_default()
        );
    }
    let ratios = with_reloads
        .iter()
        .zip(&quiet)
        .map(|(of, to)| of / to)
        .collect();
    Ok(Reload {
        source,
        rows: Rows::Many.count(),
        quiet_p99_us: median(quiet),
        p99_us: median(with_reloads),
        p99_ratio: median(ratios),
        reloads: reloads.len(),
        reload_seconds: median(reloads),
    })
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MariaDb => "MariaDB",
            Self::Sqlite => "SQLite",
        })
    }
}

fn reload(control: &Control) -> Result<()> {
    let report = control.reload()?;
    let loaded = report["subnets"].as_u64().zip(report["hosts"].as_u64());
    ensure!(
        loaded.is_some_and(|(subnets, hosts)| subnets + hosts == u64::from(Rows::Many.count())),
        "a reload loaded another table: {report}"
    );
    Ok(())
}
