//! How long the set-up of a call takes: alone, and beside what an operator does to a host and what carriers do to it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tempfile::TempDir;

use super::beside::beside;
use super::control::Control;
use super::figures::median;
use super::load::{self, Report, SetUp};
use super::own_code::with_a_function_of_its_own;
use super::pinned::{Process, free_port};
use super::plan::{Pace, Rows};
use super::servers::Programs;

/// Calls per second, and as many that have a failing target.
const RATE: u32 = 1_000;

/// Pending calls of each source: enough for calls that wait for a silent target.
const OUTSTANDING: u32 = 1_024;

/// How long a silent target has for its first response, in seconds.
const NO_ANSWER: f64 = 1.0;

/// Longest wait for a swap of the policy.
const SWAP: Duration = Duration::from_secs(30);

/// What happens beside the calls that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Beside {
    /// 100,000 rows of addresses are reloaded continuously.
    Reload,
    /// The policy file is replaced continuously.
    Swap,
    /// As many calls go to a target first at which nobody listens.
    Closed,
    /// As many calls go to a target first that never answers.
    Silent,
}

/// The result; medians of the rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SetUpBeside {
    pub(crate) beside: Beside,
    /// Calls per second.
    pub(crate) per_second: u32,
    /// p99 from INVITE to 180 and to 200 alone, in microseconds.
    pub(crate) quiet_p99_us: [f64; 2],
    /// The same beside it.
    pub(crate) p99_us: [f64; 2],
    /// The larger one of both ratios of a round.
    pub(crate) p99_ratio: f64,
    /// Number of reloads or swaps, or of calls beside.
    pub(crate) count: u64,
}

/// Measures each round alone and beside everything.
pub(crate) fn measure(programs: &Programs, pace: &Pace) -> Result<Vec<SetUpBeside>> {
    let host = Host::start(programs, pace)?;
    let all = [Beside::Reload, Beside::Swap, Beside::Closed, Beside::Silent];
    let mut rounds: [Vec<(SetUp, SetUp, u64)>; 4] = Default::default();
    let mut number = 0;
    for _ in 0..pace.rounds {
        for (beside, rounds) in all.into_iter().zip(&mut rounds) {
            let quiet = host.calls(None, programs, pace)?;
            let quiet = set_up(&quiet)?;
            let (measured, count) = host.calls_beside(beside, &mut number, programs, pace)?;
            eprintln!(
                "set-up of a call beside {beside:?}: p99 {:.0} µs, {:.0} µs alone",
                measured.accepted.p99_us, quiet.accepted.p99_us
            );
            rounds.push((quiet, measured, count));
        }
    }
    let results = all.into_iter().zip(&rounds);
    Ok(results.map(|(beside, rounds)| of(beside, rounds)).collect())
}

fn set_up(report: &Report) -> Result<SetUp> {
    report.window.set_up.context("the generator timed no calls")
}

fn of(beside: Beside, rounds: &[(SetUp, SetUp, u64)]) -> SetUpBeside {
    let p99s = |times: &SetUp| [times.ringing.p99_us, times.accepted.p99_us];
    let over =
        |pick: &dyn Fn(&(SetUp, SetUp, u64)) -> f64| median(rounds.iter().map(pick).collect());
    let ratio = |quiet: &SetUp, beside: &SetUp| {
        let ratios = p99s(beside).into_iter().zip(p99s(quiet));
        ratios.map(|(of, to)| of / to).fold(0.0, f64::max)
    };
    SetUpBeside {
        beside,
        per_second: RATE,
        quiet_p99_us: [0, 1].map(|nth| over(&|round| p99s(&round.0)[nth])),
        p99_us: [0, 1].map(|nth| over(&|round| p99s(&round.1)[nth])),
        p99_ratio: over(&|round| ratio(&round.0, &round.1)),
        count: rounds.iter().map(|round| round.2).sum(),
    }
}

/// A host with a policy that relays to the callee, and two tenants whose policies name a failing target first.
struct Host {
    // Dropped in this order: the process ends before its files are removed.
    process: Process,
    address: SocketAddr,
    callee: SocketAddr,
    control: Control,
    /// The policy without additions.
    policy: Vec<u8>,
    /// Receives what is sent to the silent target, and never answers.
    _silent: UdpSocket,
    folder: TempDir,
}

impl Host {
    fn start(programs: &Programs, pace: &Pace) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (address, control) = (local(free_port()?), local(free_port()?));
        let callee = SocketAddr::from((Ipv4Addr::new(127, 3, 0, 1), free_port()?));
        let closed = SocketAddr::from((Ipv4Addr::new(127, 3, 0, 2), free_port()?));
        let silent = UdpSocket::bind("127.3.0.3:0")?;
        let policy = fs::read(&programs.policy)
            .with_context(|| format!("cannot read {}", programs.policy.display()))?;
        fs::write(folder.path().join("policy.wasm"), &policy)?;
        write_rows(folder.path())?;
        let failover = programs.failover.display();
        let mut config = format!(
            "workers = 1\nlisten = [\"udp:{address}\"]\n[database]\naddress-file = \"rows\"\n\
             [policy]\nfile = \"policy.wasm\"\n\
             [control]\nlisten = \"{control}\"\ntoken-file = \"\"\n[log]\nlevel = \"error\"\n\
             [relay]\nnext-hop = \"sip:{callee}\"\n\
             [relay.next-hops]\ncallee = \"sip:{callee}\"\nclosed = \"sip:{closed}\"\nsilent = \"sip:{}\"\n",
            silent.local_addr()?
        );
        for (group, name) in [(301, "closed"), (302, "silent")] {
            config += &format!(
                "[tenants.{name}]\nsource-groups = [{group}]\nfile = \"{failover}\"\nnext-hops = [\"{name}\", \"callee\"]\n\
                 domains = [\"{}\"]\n\
                 [tenants.{name}.settings]\nnext-hops = [\"{name}\", \"callee\"]\nseconds = {NO_ANSWER}\n",
                callee.ip()
            );
        }
        fs::write(folder.path().join("portcullis.toml"), config)?;
        let mut command = Command::new(&programs.portcullis);
        command.current_dir(folder.path()).arg("serve");
        let log = folder.path().join("log");
        let mut process = Process::start("Portcullis", pace.server_core, &command, &log)?;
        process.wait_for_sip(address)?;
        Ok(Self {
            process,
            address,
            callee,
            control: Control::new(control),
            policy,
            _silent: silent,
            folder,
        })
    }

    /// Measures calls beside this. Returns the number of reloads or swaps, or of calls beside.
    fn calls_beside(
        &self,
        what: Beside,
        number: &mut u32,
        programs: &Programs,
        pace: &Pace,
    ) -> Result<(SetUp, u64)> {
        let changes =
            |(report, seconds): (Report, Vec<f64>)| Ok((set_up(&report)?, seconds.len() as u64));
        let crowd = |first| {
            let report = self.calls(Some(first), programs, pace)?;
            let count = report.beside.iter().map(|crowd| crowd.sent).sum();
            Ok((set_up(&report)?, count))
        };
        let calls = || self.calls(None, programs, pace);
        match what {
            Beside::Reload => changes(beside(|| self.control.reload().map(drop), calls)?),
            Beside::Swap => changes(beside(|| self.swap(number), calls)?),
            Beside::Closed => crowd("127.4.1.1"),
            Beside::Silent => crowd("127.4.2.1"),
        }
    }

    /// Replaces the policy file by one with other code, and waits until it is active.
    fn swap(&self, number: &mut u32) -> Result<()> {
        *number += 1;
        let generation = || self.control.metric("portcullis_policy_generation");
        let before = generation()?;
        let (new, file) = ("new.wasm", "policy.wasm");
        let [new, file] = [new, file].map(|name| self.folder.path().join(name));
        fs::write(&new, with_a_function_of_its_own(&self.policy, *number)?)?;
        fs::rename(&new, &file)?;
        let give_up = Instant::now() + SWAP;
        while generation()? == before {
            ensure!(
                Instant::now() < give_up,
                "a swap of the policy takes too long"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Calls from sources of the default policy, beside as many from this source on.
    fn calls(&self, others: Option<&str>, programs: &Programs, pace: &Pace) -> Result<Report> {
        let mut command = Command::new(&programs.load);
        command
            .args(["run", "--mode", "call", "--source", "127.2.0.1"])
            .args(["--target", &self.address.to_string()])
            .args(["--sink", &self.callee.to_string()])
            .args(["--sources", "4"])
            .args(["--outstanding", &OUTSTANDING.to_string()])
            .args(["--rate", &RATE.to_string()])
            .args([
                "--warm-up",
                &(pace.warm_up_seconds + 2.0 * NO_ANSWER).to_string(),
            ])
            .args(["--seconds", &pace.seconds.to_string()])
            .args(["--watch", &self.process.pid().to_string()]);
        command.args(others.map(|first| format!("--beside={first}")));
        let report = load::report(&command, pace)?;
        for crowd in &report.beside {
            let meant = f64::from(RATE) * (pace.warm_up_seconds + 2.0 * NO_ANSWER + pace.seconds);
            let least = 0.9 * meant - f64::from(RATE) * 2.0 * NO_ANSWER;
            ensure!(
                crowd.answered as f64 > least,
                "of {} calls beside those that are measured, {} were completed",
                crowd.sent,
                crowd.answered
            );
        }
        Ok(report)
    }
}

/// As many rows as other parts with many rows have: the sources of the calls, and networks without traffic.
fn write_rows(folder: &Path) -> Result<()> {
    let mut rows = String::from("200 127.2.0.0 16 0\n301 127.4.1.0 24 0\n302 127.4.2.0 24 0\n");
    for number in 3..Rows::Many.count() {
        let network = Ipv4Addr::from((20 << 24) + (number << 8));
        rows += &format!("200 {network} 24 0\n");
    }
    fs::write(folder.join("rows"), rows)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::load::Latency;
    use super::*;

    #[test]
    fn the_worse_one_of_180_and_200_counts() {
        let times = |ringing, accepted| {
            let latency = |p99_us| Latency {
                p50_us: 1.0,
                p90_us: 1.0,
                p99_us,
                max_us: 1.0,
            };
            SetUp {
                ringing: latency(ringing),
                accepted: latency(accepted),
            }
        };
        let rounds = [
            (times(10.0, 20.0), times(40.0, 30.0), 3),
            (times(10.0, 20.0), times(10.0, 60.0), 4),
            (times(10.0, 20.0), times(10.0, 20.0), 5),
        ];
        let result = of(Beside::Swap, &rounds);
        assert_eq!((result.p99_ratio, result.count), (3.0, 12));
        assert_eq!(result.quiet_p99_us, [10.0, 20.0]);
        assert_eq!(result.p99_us, [10.0, 30.0]);
    }
}
