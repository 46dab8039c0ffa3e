//! `portcullis fleet …`: the hosts on the same database.

use std::io::Write;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;
use portcullis_config::Config;
use portcullis_control::commands::fleet::{
    FleetDrained, FleetForgotten, FleetHost, FleetStage, FleetStatus,
};

use super::client::{Client, Elsewhere, NoAnswer, Reach, Reaching, encoded};
use super::policy::{FleetPush, push_to_fleet};
use super::print::{Format, Table, clean, count, stdout, write_json};
use super::rollout::RolloutCommand;

/// A host whose view of the database is late by this lags, in milliseconds.
const LAGS: u64 = 10_000;

/// A clock that differs from the database's by more than this is told, in milliseconds.
const CLOCK: u64 = 5_000;

/// Interval of the looks at a host that drains.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Subcommand)]
pub(super) enum FleetCommand {
    /// Show the hosts on the same database, and what is wrong with them
    Status {
        #[command(flatten)]
        format: Format,
        /// Exit with 1 if a host is gone or unreadable, lags by 10 s, has a wrong clock or shares its name, or if generations differ
        #[arg(long)]
        check: bool,
    },
    /// Ask a host to drain and end, as SIGTERM does
    ///
    /// It begins within about two seconds: `/readyz` answers 503; after `drain-notice` of [transactions] on that host, new calls are refused, calls in set-up are
    /// finished, and the process ends. A service manager that restarts a
    /// host whatever its exit code is starts it again.
    Drain {
        /// Its name
        host: String,
        /// Wait until it has ended, for this many seconds at most
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "300")]
        wait: Option<u64>,
    },
    /// Remove a host that is gone or has ended from the list; otherwise it stays there for a day
    Forget {
        /// Its name
        host: String,
    },
    /// Push a policy to a seat, and show what each host has of it: `policy push` with a table of the hosts
    Push(Box<FleetPush>),
    /// Roll a generation out over all hosts in steps, with gates; a gate that fails rolls it back on all of them
    #[command(subcommand)]
    Rollout(RolloutCommand),
}

impl Reaching for FleetCommand {
    fn elsewhere(&self) -> Option<(&'static str, Elsewhere)> {
        match self {
            Self::Status { .. }
            | Self::Drain { .. }
            | Self::Forget { .. }
            | Self::Push(_)
            | Self::Rollout(_) => None,
        }
    }
}

impl FleetCommand {
    pub(super) fn run(self, config: &Config, reach: &Reach) -> anyhow::Result<ExitCode> {
        let out = &mut stdout();
        let client = Client::new(config, reach)?;
        match self {
            Self::Status { format, check } => {
                let status = ask(&client)?;
                let problems = problems(&status);
                match format.json {
                    true => write_json(out, &status)?,
                    false => write(&status, &problems, out)?,
                }
                if check && !problems.is_empty() {
                    return Ok(ExitCode::FAILURE);
                }
            }
            Self::Drain { host, wait } => {
                let path = format!("/v1/fleet/{}/drain", encoded(&host));
                let drained: FleetDrained = client.send("POST", &path, &[], None)?;
                writeln!(out, "{} is asked to drain", clean(&drained.host))?;
                if let Some(seconds) = wait {
                    out.flush()?;
                    wait_for_end(&client, &drained, Duration::from_secs(seconds))?;
                    writeln!(out, "{} has ended", clean(&drained.host))?;
                }
            }
            Self::Forget { host } => {
                let path = format!("/v1/fleet/{}", encoded(&host));
                let forgotten: FleetForgotten = client.send("DELETE", &path, &[], None)?;
                writeln!(out, "{} is forgotten", clean(&forgotten.host))?;
            }
            Self::Push(push) => push_to_fleet(&client, &push, out)?,
            Self::Rollout(command) => command.run(&client, out)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn ask(client: &Client) -> anyhow::Result<FleetStatus> {
    client.send("GET", "/v1/fleet", &[], None)
}

/// Waits until a process has ended.
fn wait_for_end(client: &Client, drained: &FleetDrained, patience: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + patience;
    let mut own = None;
    loop {
        let status = match ask(client) {
            Ok(status) => status,
            // The host that answers is the one that ends.
            Err(error) if error.is::<NoAnswer>() && own.as_ref() == Some(&drained.host) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let is_it = |host: &&FleetHost| host.host == drained.host;
        let found = status.hosts.iter().find(is_it);
        let is_over = found.is_none_or(|host| {
            host.instance != drained.instance
                || matches!(host.stage, FleetStage::Ended | FleetStage::Gone)
        });
        if is_over {
            return Ok(());
        }
        if Instant::now() >= end {
            let stage = found.map_or("gone", |host| host.stage.as_str());
            bail!(
                "{} has not ended within {} s: it is {stage}; `drain` in [transactions] is how long it waits for calls",
                drained.host,
                patience.as_secs()
            );
        }
        own = Some(status.host);
        sleep(LOOK);
    }
}

/// What is wrong, one line each.
fn problems(status: &FleetStatus) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(error) = &status.error {
        problems.push(format!("{} does not announce itself: {error}", status.host));
    }
    for host in &status.hosts {
        let name = &host.host;
        match host.stage {
            FleetStage::Gone => {
                let seconds = host.silent_ms / 1_000;
                problems.push(format!(
                    "{name} is gone: silent for {seconds} s, without having said that it ends"
                ));
                continue;
            }
            FleetStage::Unreadable => problems.push(format!(
                "{name} has version {}, and the host that answers cannot read what it says",
                host.version
            )),
            FleetStage::Ended => continue,
            FleetStage::Starting | FleetStage::Serving | FleetStage::Draining => {}
        }
        let lag = host.lag_ms.unwrap_or(0);
        if lag >= LAGS {
            let seconds = lag / 1_000;
            problems.push(format!(
                "{name} lags: its view of the database is {seconds} s late"
            ));
        }
        let tables = [&host.addresses, &host.trusted];
        for error in tables
            .into_iter()
            .flatten()
            .filter_map(|table| table.error.as_ref())
        {
            problems.push(format!("{name}: {error}"));
        }
        if let Some(twin) = &host.twin {
            problems.push(format!(
                "two processes have the name {name}, at {} and {}, since {}",
                host.address, twin.address, twin.since
            ));
        }
        if let Some(peers) = &host.peers {
            let silent = peers.others.iter().filter(|it| !peers.alive.contains(it));
            problems.extend(silent.map(|other| {
                format!(
                    "{name}, at {}, does not hear {other}, with which it shares its addresses",
                    peers.listen
                )
            }));
        }
        if host.clock_ahead_ms.unsigned_abs() > CLOCK {
            let seconds = host.clock_ahead_ms.unsigned_abs() / 1_000;
            let side = match host.clock_ahead_ms {
                ..0 => "behind",
                0.. => "ahead of",
            };
            problems.push(format!(
                "the clock of {name} is {seconds} s {side} the database's"
            ));
        }
    }
    for seat in &status.differing {
        problems.push(format!(
            "generations of the seat {seat} differ: {}",
            each(status, seat)
        ));
    }
    problems
}

/// The generations of a seat on the hosts that serve.
fn each(status: &FleetStatus, seat: &str) -> String {
    let serving = status
        .hosts
        .iter()
        .filter(|host| host.stage == FleetStage::Serving);
    let each = serving.filter_map(|host| {
        let seat = host.seats.get(seat)?;
        let active = seat
            .active
            .map_or_else(|| "none".to_owned(), |n| n.to_string());
        let candidate = seat.candidate.map(|n| format!(" (candidate {n})"));
        Some(format!(
            "{} has {active}{}",
            host.host,
            candidate.unwrap_or_default()
        ))
    });
    each.collect::<Vec<_>>().join(", ")
}

fn write(status: &FleetStatus, problems: &[String], out: &mut impl Write) -> anyhow::Result<()> {
    if status.hosts.is_empty() && status.error.is_none() {
        let why = match status.announced {
            true => "no host has announced itself yet",
            false => {
                "no host announces itself: `announce` in [fleet]; \"auto\" does so on a database server, not in an SQLite file"
            }
        };
        writeln!(out, "{why}")?;
    }
    for problem in problems {
        writeln!(out, "! {}", clean(problem))?;
    }
    if status.hosts.is_empty() {
        return Ok(());
    }
    if !problems.is_empty() {
        writeln!(out)?;
    }
    let mut table = Table::new([
        "host",
        "stage",
        "address",
        "version",
        "lag ms",
        "requests/s",
        "calls",
        "busy %",
        "rows",
        "seats",
        "alerts",
    ]);
    for host in &status.hosts {
        let stage = match &host.wish {
            Some(wish) if host.stage == FleetStage::Serving => {
                format!("serving, asked to {}", wish.wish)
            }
            Some(_) | None => host.stage.as_str().to_owned(),
        };
        let alerts = host.alerts.iter();
        let alerts = alerts.map(|(kind, count)| match count {
            1 => kind.clone(),
            count => format!("{count} {kind}"),
        });
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        table.push([
            host.host.clone(),
            stage,
            host.address.clone(),
            host.version.clone(),
            number(host.lag_ms),
            host.requests_per_second.to_string(),
            host.calls.to_string(),
            host.busy_percent.to_string(),
            number(host.addresses.as_ref().map(|table| table.rows)),
            host.seats_total.to_string(),
            alerts.collect::<Vec<_>>().join(", "),
        ]);
    }
    table.write(out)?;
    let alive = status.hosts.iter().filter(|host| match host.stage {
        FleetStage::Starting | FleetStage::Serving | FleetStage::Draining => true,
        FleetStage::Ended | FleetStage::Gone | FleetStage::Unreadable => false,
    });
    let alive = count(alive.count() as u64, "host");
    Ok(writeln!(
        out,
        "{alive} alive, as {} sees them",
        clean(&status.host)
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    fn host(name: &str, stage: &str, active: u64) -> serde_json::Value {
        json!({
            "host": name, "instance": "0", "stage": stage, "address": format!("udp:{name}:5060"), "version": "0.1.0",
            "started_at": "2026-01-01T00:00:00Z", "seen_at": "2026-01-01T00:00:00Z", "silent_ms": 7100, "lag_ms": 12,
            "listen": [], "control": [], "seats": {"acme": {"active": active, "digest": "00", "is_file": false, "candidate": null,
            "share": null, "revision": 1, "calls": 0, "failures": 0, "differing": 0, "time_us": 0}}, "seats_total": 1,
            "addresses": {"generation": 1, "rows": 3, "error": null}, "trusted": null, "alerts": {"set-down": 2},
            "requests_per_second": 5, "calls": 1, "busy_percent": 3, "clock_ahead_ms": 0, "twin": null, "wish": null,
        })
    }

    fn status(hosts: &[serde_json::Value], differing: &[&str]) -> FleetStatus {
        let status = json!({"host": "a", "announced": true, "error": null, "hosts": hosts, "differing": differing});
        from_value(status).unwrap()
    }

    fn shown(status: &FleetStatus) -> String {
        let mut out = Vec::new();
        write(status, &problems(status), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_wrong_comes_first() {
        let hosts = [
            host("a", "serving", 1),
            host("b", "serving", 2),
            host("c", "gone", 2),
            host("d", "ended", 2),
        ];
        assert_eq!(
            shown(&status(&hosts, &["acme"])),
            "! c is gone: silent for 7 s, without having said that it ends\n\
             ! generations of the seat acme differ: a has 1, b has 2\n\
             \n\
             host  stage    address     version  lag ms  requests/s  calls  busy %  rows  seats  alerts\n\
             a     serving  udp:a:5060  0.1.0        12           5      1       3     3      1  2 set-down\n\
             b     serving  udp:b:5060  0.1.0        12           5      1       3     3      1  2 set-down\n\
             c     gone     udp:c:5060  0.1.0        12           5      1       3     3      1  2 set-down\n\
             d     ended    udp:d:5060  0.1.0        12           5      1       3     3      1  2 set-down\n\
             2 hosts alive, as a sees them\n"
        );
    }

    #[test]
    fn an_ended_host_is_no_problem_and_a_lagging_one_is() {
        assert_eq!(problems(&status(&[host("d", "ended", 2)], &[])), [""; 0]);
        let mut late = host("a", "serving", 1);
        late["lag_ms"] = json!(61_000);
        late["clock_ahead_ms"] = json!(-120_000);
        late["twin"] = json!({"address": "udp:b:5060", "since": "2026-01-01T00:00:00Z"});
        assert_eq!(
            problems(&status(&[late], &[])),
            [
                "a lags: its view of the database is 61 s late",
                "two processes have the name a, at udp:a:5060 and udp:b:5060, since 2026-01-01T00:00:00Z",
                "the clock of a is 120 s behind the database's",
            ]
        );
    }

    #[test]
    fn hosts_that_share_addresses_and_do_not_hear_each_other_are_a_problem() {
        let mut deaf = host("a", "serving", 1);
        deaf["peers"] = json!({
            "listen": "10.0.0.1:5070",
            "others": ["10.0.0.2:5070", "10.0.0.3:5070"],
            "alive": ["10.0.0.3:5070"],
        });
        assert_eq!(
            problems(&status(&[deaf], &[])),
            [
                "a, at 10.0.0.1:5070, does not hear 10.0.0.2:5070, with which it shares its addresses"
            ]
        );
    }

    #[test]
    fn nobody_is_told_apart_from_nobody_yet() {
        assert_eq!(
            shown(&status(&[], &[])),
            "no host has announced itself yet\n"
        );
        let silent = FleetStatus {
            announced: false,
            ..status(&[], &[])
        };
        assert!(shown(&silent).contains("`announce` in [fleet]"));
    }
}
