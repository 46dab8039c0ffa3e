//! A set of 1,000 gateways, some of which fail under load, against a set of one.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tempfile::TempDir;

use super::super::control::Control;
use super::super::figures::median;
use super::super::load::{self, Report};
use super::super::pinned::{Process, free_port};
use super::super::plan::Pace;
use super::super::servers::Programs;
use super::gateways::{Failure, Gateways};
use super::servers::Site;

/// Number of gateways of a large set.
const MEMBERS: u32 = 1_000;

/// Number of those that fail.
const FAILING: u32 = 10;

/// INVITEs per second: less than a tenth of what a host relays, so that nothing waits for anything but gateways.
const RATE: u64 = 2_000;

/// Answers that take longer are late, in milliseconds.
const LATE_MS: u32 = 500;

/// Time from the beginning of a run at a rate until gateways fail.
const HEALTHY: Duration = Duration::from_secs(3);

/// Shortest run at a rate in seconds. At two requests a second for each gateway, it takes three of them, and 4 s (`no-answer`), until a silent one is
/// found out; the rest of the run shows that it is left out.
const RATED: f64 = 12.0;

/// Time until a request is given up, in milliseconds: longer than three silent gateways in a row are waited for.
const PATIENCE: u32 = 20_000;

/// What set requests go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Set {
    /// One gateway.
    One,
    /// 1,000 gateways.
    Thousand,
    /// The same, and ten of them are closed after some seconds.
    Closed,
    /// The same, and ten of them do not answer any more after some seconds.
    Silent,
}

const SETS: [Set; 4] = [Set::One, Set::Thousand, Set::Closed, Set::Silent];

/// The result; medians and sums of the rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Dispatched {
    pub(crate) set: Set,
    pub(crate) members: u32,
    pub(crate) failing: u32,
    /// CPU time for an INVITE and its 200 with the server's core full, after what is measured at a rate, in microseconds.
    pub(crate) cpu_us: f64,
    /// The same against the set of one gateway in the same round.
    pub(crate) against_one: f64,
    /// INVITEs per second from the first second of the host on. Gateways fail meanwhile.
    pub(crate) per_second: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) most_us: f64,
    /// INVITEs of all rounds, those that were answered after more than 500 ms, without any answer, and with another answer than 200.
    pub(crate) sent: u64,
    pub(crate) late: u64,
    pub(crate) lost: u64,
    pub(crate) refused: u64,
    /// Targets of these INVITEs that did not answer or were closed: the next gateway had its turn.
    pub(crate) failed_over: u64,
}

/// What was measured of a set in a round.
struct Measured {
    /// At a steady rate, while gateways fail.
    rated: Report,
    /// At full load, when the host has found out which.
    full: Report,
    failed_over: u64,
}

/// Measures each set in each round, with a new host.
pub(crate) fn measure(site: &Site<'_>) -> Result<Vec<Dispatched>> {
    let Site { programs, pace, .. } = *site;
    let mut rounds: Vec<Round> = Vec::new();
    for _ in 0..pace.rounds {
        let mut round = Vec::new();
        for set in SETS {
            let mut host = Host::start(set, programs, pace).with_context(|| format!("{set:?}"))?;
            let (rated, failed_over) = host.at_a_rate(programs, pace)?;
            let found_out = host.found_out()?;
            ensure!(
                found_out == u64::from(set.failing()),
                "{set:?}: {found_out} of {} gateways are inactive after the run in which they failed",
                set.failing()
            );
            let full = host.full(programs, pace);
            let full = full.with_context(|| format!("{set:?}, at full load"))?;
            eprintln!(
                "dispatcher, {set:?}: {:.2} µs, {failed_over} failed over, {} of {} late, {} lost",
                full.window.server.cpu_us, rated.late, rated.sent, rated.lost
            );
            round.push(Measured {
                rated,
                full,
                failed_over,
            });
        }
        let round = <[_; 4]>::try_from(round).ok();
        rounds.push(round.context("each set was measured")?);
    }
    Ok((0..)
        .zip(SETS)
        .map(|(nth, set)| of(nth, set, &rounds))
        .collect())
}

/// What was measured of each set.
type Round = [Measured; 4];

fn of(nth: usize, set: Set, rounds: &[Round]) -> Dispatched {
    let over = |pick: &dyn Fn(&Round) -> f64| median(rounds.iter().map(pick).collect());
    let sum =
        |pick: &dyn Fn(&Measured) -> u64| rounds.iter().map(|round| pick(&round[nth])).sum::<u64>();
    let cpu_us = |of: &Measured| of.full.window.server.cpu_us;
    let latency = |of: &Round| of[nth].rated.window.latency;
    Dispatched {
        set,
        members: set.members(),
        failing: set.failing(),
        cpu_us: over(&|round| cpu_us(&round[nth])),
        against_one: over(&|round| cpu_us(&round[nth]) / cpu_us(&round[0])),
        per_second: RATE,
        p50_us: over(&|round| latency(round).p50_us),
        p99_us: over(&|round| latency(round).p99_us),
        most_us: rounds
            .iter()
            .map(|round| latency(round).max_us)
            .fold(0.0, f64::max),
        sent: sum(&|of| of.rated.sent),
        late: sum(&|of| of.rated.late),
        lost: sum(&|of| of.rated.lost),
        refused: sum(&|of| of.rated.unexpected),
        failed_over: sum(&|of| of.failed_over),
    }
}

/// A host whose policy sends requests to the gateways in turn.
struct Host {
    // Dropped in this order: the process ends before its files are removed.
    process: Process,
    address: SocketAddr,
    control: Control,
    /// The callee at every address of this machine: the gateways that answer.
    callee: SocketAddr,
    /// The gateways that fail.
    failing: Option<Gateways>,
    _folder: TempDir,
}

impl Host {
    fn start(set: Set, programs: &Programs, pace: &Pace) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (address, control) = (local(free_port()?), local(free_port()?));
        let callee = SocketAddr::from((Ipv4Addr::UNSPECIFIED, free_port()?));
        let failing_port = free_port()?;
        let at = |network: u8, nth: u32, port| {
            let [_, _, high, low] = (nth + 1).to_be_bytes();
            SocketAddr::from((Ipv4Addr::new(127, network, high, low), port))
        };
        // Those that fail are spread over the set.
        let is_failing = |nth| set.failing() > 0 && nth % (set.members() / set.failing()) == 0;
        let gateways = (0..set.members()).map(|nth| match is_failing(nth) {
            true => at(6, nth, failing_port),
            false => at(5, nth, callee.port()),
        });
        let failing = gateways.clone().filter(|at| at.port() == failing_port);
        let failing = set
            .failure()
            .map(|failure| Gateways::start(failing, failure));
        let failing = failing.transpose().context("the gateways that fail")?;
        let lines: String = gateways
            .map(|gateway| format!("1 sip:{gateway}\n"))
            .collect();
        fs::write(folder.path().join("gateways"), lines)?;
        fs::write(folder.path().join("rows"), "200 127.2.0.0 16 0\n")?;
        let config = format!(
            "workers = 1\nlisten = [\"udp:{address}\"]\n[database]\naddress-file = \"rows\"\n\
             [policy]\nfile = \"{}\"\n\
             [dispatcher]\nfile = \"gateways\"\n\
             [relay]\nnext-hop = \"sip:{}\"\n\
             [control]\nlisten = \"{control}\"\ntoken-file = \"\"\n\
             [log]\nlevel = \"error\"\n",
            programs.dispatching.display(),
            at(5, 1, callee.port()),
        );
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
            failing,
            _folder: folder,
        })
    }

    /// A steady rate, during which gateways fail. Returns the number of targets that were followed by others, too.
    fn at_a_rate(&mut self, programs: &Programs, pace: &Pace) -> Result<(Report, u64)> {
        let before = self.failed_over()?;
        let mut command = self.command(programs);
        command
            .args(["--rate", &RATE.to_string()])
            // So many wait for gateways that do not answer.
            .args(["--sources", "16", "--outstanding", "1024"])
            .args(["--patience", &PATIENCE.to_string()])
            .args(["--late", &LATE_MS.to_string()])
            .args(["--seconds", &pace.seconds.max(RATED).to_string()]);
        let failing = self.failing.as_mut();
        let report = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(HEALTHY);
                failing.map(Gateways::fail)
            });
            load::unchecked(&command, pace)
        })?;
        Ok((report, self.failed_over()? - before))
    }

    /// Targets so far that did not answer in time, or were closed.
    fn failed_over(&self) -> Result<u64> {
        let with = |result: &str| {
            let name = format!("portcullis_attempts_total{{result=\"{result}\"}}");
            self.control.metric(&name)
        };
        Ok(with("no_answer")? + with("unreachable")?)
    }

    /// Gateways that get no more requests.
    fn found_out(&self) -> Result<u64> {
        let name = "portcullis_dispatcher_destinations{state=\"inactive\"}";
        self.control.metric(name)
    }

    /// As many requests as the host relays: what fails is known by now.
    fn full(&self, programs: &Programs, pace: &Pace) -> Result<Report> {
        let mut command = self.command(programs);
        command
            .args(["--sources", &pace.sources.to_string()])
            .args(["--outstanding", &pace.outstanding.to_string()])
            .args(["--patience", "10000"])
            .args(["--warm-up", &pace.warm_up_seconds.to_string()])
            .args(["--seconds", &pace.seconds.to_string()]);
        load::report(&command, pace)
    }

    fn command(&self, programs: &Programs) -> Command {
        let mut command = Command::new(&programs.load);
        command
            .args(["run", "--mode", "relay", "--source", "127.2.0.1"])
            .args(["--target", &self.address.to_string()])
            .args(["--sink", &self.callee.to_string()])
            .args(["--watch", &self.process.pid().to_string()]);
        command
    }
}

impl Set {
    fn members(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Thousand | Self::Closed | Self::Silent => MEMBERS,
        }
    }

    fn failure(self) -> Option<Failure> {
        match self {
            Self::One | Self::Thousand => None,
            Self::Closed => Some(Failure::Closed),
            Self::Silent => Some(Failure::Silent),
        }
    }

    fn failing(self) -> u32 {
        self.failure().map_or(0, |_| FAILING)
    }
}

/// Writes the results as a table.
pub(crate) fn table(all: &[Dispatched], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(first) = all.first() else {
        return Ok(());
    };
    writeln!(
        f,
        "\nINVITE relayed to a set of gateways in turn: CPU with the server's core full, after the rest at {} a second from the start on; gateways fail \
         after {} s of it",
        first.per_second,
        HEALTHY.as_secs()
    )?;
    writeln!(
        f,
        "{:>8} {:>10} {:>8} {:>7} {:>8} {:>8} {:>10} {:>8} {:>11} {:>14} {:>6} {:>8}",
        "gateways",
        "failing",
        "CPU µs",
        "to one",
        "p50 ms",
        "p99 ms",
        "slowest ms",
        "sent",
        "failed over",
        "late (500 ms)",
        "lost",
        "refused"
    )?;
    for one in all {
        let failing = match one.set {
            Set::One | Set::Thousand => "none".to_owned(),
            Set::Closed => format!("{} closed", one.failing),
            Set::Silent => format!("{} silent", one.failing),
        };
        writeln!(
            f,
            "{:>8} {failing:>10} {:>8.2} {:>6.2}x {:>8.2} {:>8.2} {:>10.1} {:>8} {:>11} {:>14} {:>6} {:>8}",
            one.members,
            one.cpu_us,
            one.against_one,
            one.p50_us / 1000.0,
            one.p99_us / 1000.0,
            one.most_us / 1000.0,
            one.sent,
            one.failed_over,
            one.late,
            one.lost,
            one.refused
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::figures::tests::report;
    use super::*;

    #[test]
    fn a_set_is_compared_with_one_gateway_in_the_same_round() {
        let round = |one, thousand, late| {
            let at = |cpu_us| {
                let mut rated = report(1.0);
                rated.late = late;
                Measured {
                    rated,
                    full: report(cpu_us),
                    failed_over: 5,
                }
            };
            [at(one), at(thousand), at(one), at(one)]
        };
        let rounds = [round(2.0, 3.0, 1), round(4.0, 4.0, 2), round(8.0, 16.0, 3)];
        let of = of(1, Set::Thousand, &rounds);
        assert_eq!((of.cpu_us, of.against_one), (4.0, 1.5));
        assert_eq!((of.sent, of.late, of.lost), (3000, 6, 0));
        assert_eq!(of.failed_over, 15);
        assert_eq!((of.members, of.failing), (1000, 0));
    }
}
