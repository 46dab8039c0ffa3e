//! Upgrades of a host (SIGUSR2) beside steady requests.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::load::Latency;
use super::pinned::pin;
use super::plan::{Pace, Rows, STEADY, Server, Subject, Work};
use super::servers::{Programs, Running};
use crate::process::capture;

/// The result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Upgrades {
    /// How often the host was upgraded.
    pub(crate) upgrades: usize,
    /// MESSAGEs per second.
    pub(crate) per_second: u64,
    /// MESSAGEs sent, each once.
    pub(crate) sent: u64,
    /// Those without a response.
    pub(crate) lost: u64,
    /// The slowest hundredth of the responses, in microseconds.
    pub(crate) p99_us: f64,
    /// The slowest response, in microseconds.
    pub(crate) most_us: f64,
}

/// What the generator reports, without what the server used: no process lives from the beginning to the end.
#[derive(Debug, Deserialize)]
struct Report {
    sent: u64,
    lost: u64,
    window: Window,
}

#[derive(Debug, Deserialize)]
struct Window {
    latency: Latency,
}

const UPGRADES: usize = 3;

/// Time for one upgrade: the new process compiles the policy on the core of the old one.
const EACH: Duration = Duration::from_secs(4);

/// Upgrades a host under load several times.
pub(crate) fn measure(programs: &Programs, pace: &Pace) -> Result<Upgrades> {
    let subject = Subject {
        server: Server::Portcullis,
        rows: Some(Rows::Few),
    };
    let host = Running::start(subject, pace.server_core, programs, None)?;
    let seconds = EACH.as_secs() * (UPGRADES as u64 + 1);
    let mut generator = Command::new(&programs.load);
    generator
        .args(["run", "--target", &host.address.to_string()])
        .args(["--mode", Work::Message.mode()])
        .args(["--source", Work::Message.first_source()])
        .args(["--sources", &pace.sources.to_string()])
        .args(["--sink", &host.callee.to_string()])
        .args(["--rate", &STEADY.to_string()])
        .args(["--seconds", &seconds.to_string()]);
    let generator = pin(pace.load_core, &generator)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run the generator")?;
    let mut successors: Vec<Successor> = Vec::new();
    for _ in 0..UPGRADES {
        let pid = successors.last().map_or_else(|| host.pid(), |last| last.0);
        capture(&mut kill("USR2", pid))?;
        thread::sleep(EACH);
        let child = child(pid).with_context(|| format!("process {pid} was not upgraded"))?;
        successors.push(Successor(child));
    }
    let output = generator.wait_with_output()?;
    let last = successors.last().map_or(0, |last| last.0);
    ensure!(
        Path::new(&format!("/proc/{last}")).exists(),
        "the last process has ended"
    );
    let report: Report =
        serde_json::from_slice(&output.stdout).context("the generator's report cannot be read")?;
    Ok(Upgrades {
        upgrades: UPGRADES,
        per_second: STEADY,
        sent: report.sent,
        lost: report.lost,
        p99_us: report.window.latency.p99_us,
        most_us: report.window.latency.max_us,
    })
}

/// A process that has taken over. It ends when this is dropped.
struct Successor(u32);

impl Drop for Successor {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = kill("KILL", self.0).output();
    }
}

fn kill(signal: &str, pid: u32) -> Command {
    let mut kill = Command::new("kill");
    kill.args(["-s", signal, &pid.to_string()]);
    kill
}

/// The process that another one has started.
fn child(pid: u32) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let children = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let all: Vec<String> = children.collect();
    all.concat().split_whitespace().next()?.parse().ok()
}
