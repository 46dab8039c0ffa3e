//! The effect of hostile tenants on another tenant on the same worker: the latency of its requests alone, next to four well-behaved
//! tenants, and next to four hostile ones.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tempfile::TempDir;

use super::figures::median;
use super::load::Report;
use super::pinned::{Process, free_port, pin};
use super::plan::Pace;
use super::servers::Programs;

/// Requests per second of each tenant.
const RATE: u32 = 5_000;

/// The tenants next to the measured one, and how each misbehaves.
const HOSTILE: [(&str, &str); 4] = [
    ("loops", "loop"),
    ("grows", "grow"),
    ("traps", "trap"),
    ("shouts", "log"),
];

/// Seconds for which the other tenants send before the measurement begins.
const SETTLE: f64 = 2.0;

/// The result; medians of the rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Neighbours {
    /// What limits the hostile tenants.
    pub(crate) check: Check,
    /// Requests per second of each of the five tenants.
    pub(crate) per_second: u32,
    /// p99 of the tenant alone, microseconds.
    pub(crate) alone_p99_us: f64,
    /// The same next to four well-behaved tenants.
    pub(crate) calm_p99_us: f64,
    /// The same next to four hostile ones.
    pub(crate) hostile_p99_us: f64,
    /// Ratio of the last to the first, of one round each.
    pub(crate) p99_ratio: f64,
    /// Responses per request of the tenant, next to hostile ones.
    pub(crate) answered: f64,
}

/// What limits hostile tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Check {
    /// The default: a policy that fails is taken out of service for a while.
    Breaker,
    /// No breaker: each request is evaluated, with a deadline of 1 ms and a CPU share of 5 % for each tenant.
    Share,
}

/// Measures each round alone, next to well-behaved and next to hostile tenants.
pub(crate) fn measure(check: Check, programs: &Programs, pace: &Pace) -> Result<Neighbours> {
    let calm = Host::start(check, false, programs, pace)?;
    let hostile = Host::start(check, true, programs, pace)?;
    let (mut alone, mut beside, mut attacked, mut answered) = (vec![], vec![], vec![], vec![]);
    for _ in 0..pace.rounds {
        let report = calm.measure(programs, pace)?;
        alone.push(report.window.latency.p99_us);
        let report = calm.with_neighbours(programs, pace)?;
        beside.push(report.window.latency.p99_us);
        let report = hostile.with_neighbours(programs, pace)?;
        attacked.push(report.window.latency.p99_us);
        answered.push(report.answered as f64 / report.sent as f64);
        let last = |all: &[f64]| all.last().copied().unwrap_or_default();
        eprintln!(
            "neighbours, {check:?}: p99 {:.0} µs alone, {:.0} µs beside calm ones, {:.0} µs beside hostile ones",
            last(&alone),
            last(&beside),
            last(&attacked)
        );
    }
    let ratios = attacked
        .iter()
        .zip(&alone)
        .map(|(of, to)| of / to)
        .collect();
    Ok(Neighbours {
        check,
        per_second: RATE,
        alone_p99_us: median(alone),
        calm_p99_us: median(beside),
        hostile_p99_us: median(attacked),
        p99_ratio: median(ratios),
        answered: median(answered),
    })
}

/// A host with five tenants, selected by the source of requests.
struct Host {
    // Dropped in this order: the process ends before its files are removed.
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Host {
    fn start(check: Check, is_hostile: bool, programs: &Programs, pace: &Pace) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (address, control) = (local(free_port()?), local(free_port()?));
        let policy = programs.hostile.display();
        let mut config = format!(
            "workers = 1\nlisten = [\"udp:{address}\"]\n[database]\naddress-file = \"rows\"\n\
             [control]\nlisten = \"{control}\"\ntoken-file = \"\"\n[log]\nlevel = \"error,policy=off\"\n[sip]\nanswers-per-second = 1000000\nanswers-burst = 10000000\n"
        );
        let tenants = [("good", "well")].into_iter().chain(HOSTILE);
        let mut rows = String::new();
        for (number, (name, how)) in (1..).zip(tenants) {
            rows += &format!("{number} 127.1.{number}.0 24 0\n");
            let how = if is_hostile { how } else { "well" };
            config +=
                &format!("[tenants.{name}]\nsource-groups = [{number}]\nfile = \"{policy}\"\n");
            if check == Check::Share && name != "good" {
                config += "breaker-failures = 0\ncpu-share = \"5%\"\ndeadline = \"1ms\"\n";
            }
            config += &format!("[tenants.{name}.settings]\nhow = \"{how}\"\n");
        }
        fs::write(folder.path().join("rows"), rows)?;
        fs::write(folder.path().join("portcullis.toml"), config)?;
        let mut command = Command::new(&programs.portcullis);
        command.current_dir(folder.path()).arg("serve");
        let log = folder.path().join("log");
        let mut process = Process::start("Portcullis", pace.server_core, &command, &log)?;
        process.wait_for_sip(address)?;
        let said = fs::read_to_string(&log)?;
        if let Some(line) = said.lines().find(|line| line.contains("has no policy")) {
            bail!("{line}");
        }
        Ok(Self {
            process,
            address,
            _folder: folder,
        })
    }

    /// Measures the tenant's own requests.
    fn measure(&self, programs: &Programs, pace: &Pace) -> Result<Report> {
        self.load(0, pace.warm_up_seconds, programs, pace)
    }

    /// The same while the four others send as many, all from one generator, so that none of them delays another.
    fn with_neighbours(&self, programs: &Programs, pace: &Pace) -> Result<Report> {
        let warm_up = pace.warm_up_seconds + SETTLE;
        let report = self.load(HOSTILE.len(), warm_up, programs, pace)?;
        let meant = f64::from(RATE) * (warm_up + pace.seconds);
        for crowd in &report.beside {
            // Otherwise the figures would be those of a weaker attack.
            if (crowd.sent as f64) < 0.95 * meant {
                bail!("a neighbour sent {} requests of {meant}", crowd.sent);
            }
        }
        Ok(report)
    }

    fn load(
        &self,
        neighbours: usize,
        warm_up: f64,
        programs: &Programs,
        pace: &Pace,
    ) -> Result<Report> {
        let source = |tenant: usize| format!("127.1.{}.1", tenant + 1);
        let mut command = Command::new(&programs.load);
        command
            .args(["run", "--mode", "reject", "--target"])
            .arg(self.address.to_string())
            .args(["--source", &source(0), "--sources", "4"])
            .args(["--outstanding", "256", "--patience", "2000"])
            .args(["--rate", &RATE.to_string()])
            .args(["--warm-up", &warm_up.to_string()])
            .args(["--seconds", &pace.seconds.to_string()])
            .args(["--watch", &self.process.pid().to_string()]);
        for neighbour in 1..=neighbours {
            command.args(["--beside", &source(neighbour)]);
        }
        let output = pin(pace.load_core, &command)
            .output()
            .context("cannot run the generator")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let report: Report = serde_json::from_slice(&output.stdout)
            .context("the generator's report cannot be read")?;
        if report.unexpected > 0 {
            bail!("{} answers were not those of the policy", report.unexpected);
        }
        Ok(report)
    }
}
