//! `portcullis-soak`: one host under traffic, policy swaps, reloads, pushes, hostile tenants, slow clients, database stops, a shortage of
//! descriptors and a full disk, for as long as asked. `cargo xtask soak` builds what it needs and runs it.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod actors;
mod calls;
mod counters;
mod disk;
mod fleet;
mod galera;
mod honest;
mod memory;
mod names;
mod process;
mod renewals;
mod report;
mod rounds;
mod run;
mod site;
mod tenants;
mod times;
mod turns;
mod vip;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;

use crate::run::Plan;

/// Runs a soak, or attacks on the memory of hosts; the exit status is 1 if an invariant was broken.
#[derive(Debug, Parser)]
enum Cli {
    /// One host under traffic, changes, attacks and failures
    Run(Args),
    /// Attacks on memory, each on a host of its own
    Memory {
        /// Length of each attack
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Also write the report to this file, as JSON
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// One host with many tenants, whose policy files are replaced under traffic
    Tenants(TenantsArgs),
    /// One host with calls, whose memory stays flat
    Calls(CallsArgs),
    /// One host whose certificate is renewed, well and badly, beside handshakes and requests
    Renewals(RenewalsArgs),
    /// One host whose next hop is a name, while its zone changes under requests
    Names(NamesArgs),
    /// Several hosts that hold one limit together through Redis: the error, compared with its bound
    Counters(CountersArgs),
    /// Two hosts with one address that moves between them under requests and calls; as root
    Vip(VipArgs),
    /// Three hosts on a Galera cluster of three nodes, which fail and return under requests, pushes and changes of rows
    Galera(GaleraArgs),
    /// Many hosts on one database, which they load, follow and lose together
    Fleet(FleetArgs),
}

#[derive(Debug, clap::Args)]
struct FleetArgs {
    /// Let the database be a Galera cluster of three nodes; the hosts spread over them
    #[arg(long)]
    galera: bool,
    /// Number of hosts, each a process with one worker
    #[arg(long, default_value_t = 50)]
    hosts: usize,
    /// Rows of the address table
    #[arg(long, default_value_t = 100_000)]
    rows: u32,
    /// Tenants in the database, each with a policy of its own
    #[arg(long, default_value_t = 100)]
    tenants: u32,
    /// Number of changes: of rows, and half as many of policies and of tenants together
    #[arg(long, default_value_t = 200)]
    changes: usize,
    /// How long the idle fleet is watched; a host closes connections that it does not need after a minute
    #[arg(long, default_value_t = 90)]
    seconds: u64,
    /// Also write the report to this file, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct GaleraArgs {
    /// Number of faults of nodes, in turn: killed, stopped, cut off, killed without its state
    #[arg(long, default_value_t = 100)]
    faults: u64,
    /// Number of changes of rows; each tenth is followed by a push
    #[arg(long, default_value_t = 1000)]
    changes: u64,
    /// Do not judge times, for a machine that has other work
    #[arg(long)]
    untimed: bool,
    /// Also write the report to this file, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct CountersArgs {
    /// Number of hosts
    #[arg(long, default_value_t = 3)]
    hosts: u32,
    /// Length before the first kill of Redis, and after each
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Requests per second that the hosts may admit together
    #[arg(long, default_value_t = 20)]
    per_second: u32,
    /// Requests that they may admit at once
    #[arg(long, default_value_t = 20)]
    burst: u32,
    /// Time between two exchanges, in milliseconds
    #[arg(long, default_value_t = 200)]
    interval_ms: u64,
    /// How often Redis is killed
    #[arg(long, default_value_t = 0)]
    kills: u32,
    /// Do not judge times, for a machine that has other work
    #[arg(long)]
    untimed: bool,
    /// Also write the report to this file, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct VipArgs {
    /// Number of moves
    #[arg(long, default_value_t = 12)]
    moves: u64,
    /// Requests per second
    #[arg(long, default_value_t = 5000)]
    rate: u64,
    /// Let keepalived move the address, as contrib/keepalived configures it
    #[arg(long)]
    keepalived: bool,
    /// Do not judge rates and what is sent again, for a machine that has other work
    #[arg(long)]
    untimed: bool,
    /// Also write the report to this file, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct NamesArgs {
    /// Number of changes of the zone
    #[arg(long, default_value_t = 20)]
    changes: u64,
    /// Requests per second
    #[arg(long, default_value_t = 5000)]
    rate: u64,
    /// Do not judge times, rates and overload, for a machine that has other work
    #[arg(long)]
    untimed: bool,
    /// Also write the report to this file, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct RenewalsArgs {
    /// Number of renewals; every other one is by files that cannot be used
    #[arg(long, default_value_t = 1000)]
    renewals: u64,
    /// Requests per second, half of them over UDP and half of them over TLS
    #[arg(long, default_value_t = 5000)]
    rate: u64,
    /// Handshakes per second, half of them with a resumed session
    #[arg(long, default_value_t = 500)]
    handshakes: u64,
    /// Do not judge times, rates and overload, for a machine that has other work
    #[arg(long)]
    untimed: bool,
    /// Also write the report to this file, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct CallsArgs {
    /// Number of calls
    #[arg(long, default_value_t = 1_000_000)]
    calls: u64,
    /// Calls per second
    #[arg(long, default_value_t = 2000)]
    rate: u64,
    /// Also write the report to this file, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct TenantsArgs {
    /// Number of tenants, each with a policy file of its own
    #[arg(long, default_value_t = 200)]
    tenants: u32,
    /// Length of the soak, the start of the host not included
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Requests per second, to random tenants
    #[arg(long, default_value_t = 2000)]
    rate: u64,
    /// Requests per thousand that the host may reject for overload
    #[arg(long, default_value_t = 0)]
    turned_away: u64,
    /// Also write the report to this file, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Args {
    /// Length of the soak
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// Requests per second of the counted traffic
    #[arg(long, default_value_t = 2000)]
    rate: u64,
    /// Upper bound for the 99th percentile of honest requests during attacks and failures, in milliseconds
    #[arg(long, default_value_t = 100)]
    p99_ms: u64,
    /// Honest requests per thousand that the host may reject for overload
    #[arg(long, default_value_t = 0)]
    turned_away: u64,
    /// Also write the report to this file, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let holds = match Cli::parse() {
        Cli::Run(args) => soak(&args)?,
        Cli::Memory { seconds, report } => {
            let told = memory::run(Duration::from_secs(seconds))?;
            for one in &told {
                println!("{}", one.text());
            }
            write(report.as_deref(), &told)?;
            told.iter().all(memory::Told::is_within)
        }
        Cli::Tenants(args) => soak_with_tenants(&args)?,
        Cli::Calls(args) => soak_with_calls(&args)?,
        Cli::Renewals(args) => soak_with_renewals(&args)?,
        Cli::Names(args) => soak_with_names(&args)?,
        Cli::Counters(args) => soak_of_counters(&args)?,
        Cli::Vip(args) => soak_with_vip(&args)?,
        Cli::Galera(args) => soak_with_galera(&args)?,
        Cli::Fleet(args) => soak_with_a_fleet(&args)?,
    };
    Ok(match holds {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Runs a soak; true if all invariants held.
fn soak(args: &Args) -> Result<bool> {
    ensure!(
        args.seconds >= 20,
        "--seconds {}: at least 20 are needed for each kind of trouble to come about once",
        args.seconds
    );
    let plan = Plan {
        length: Duration::from_secs(args.seconds),
        rate: args.rate,
        p99: Duration::from_millis(args.p99_ms),
        turned_away: args.turned_away,
    };
    let report = run::run(&plan)?;
    print!("{}", report.text());
    write(args.report.as_deref(), &report)?;
    Ok(report.broken.is_empty())
}

/// Runs a soak with many tenants; true if all invariants held.
fn soak_with_tenants(args: &TenantsArgs) -> Result<bool> {
    ensure!(
        (1..=portcullis_load::MAX_TENANTS).contains(&args.tenants),
        "--tenants {}: write a number from 1 to {}",
        args.tenants,
        portcullis_load::MAX_TENANTS
    );
    let plan = tenants::Plan {
        tenants: args.tenants,
        length: Duration::from_secs(args.seconds),
        rate: args.rate,
        turned_away: args.turned_away,
    };
    let report = tenants::run(&plan)?;
    print!("{}", report.text());
    write(args.report.as_deref(), &report)?;
    Ok(report.broken.is_empty())
}

/// Runs a soak with calls; true if all invariants held.
fn soak_with_calls(args: &CallsArgs) -> Result<bool> {
    ensure!(
        args.calls >= calls::PARTS && args.rate > 0,
        "--calls {} --rate {}: at least {} calls are needed, and one per second",
        args.calls,
        args.rate,
        calls::PARTS
    );
    let plan = calls::Plan {
        calls: args.calls,
        rate: args.rate,
    };
    let report = calls::run(&plan)?;
    print!("{}", report.text());
    write(args.report.as_deref(), &report)?;
    Ok(report.broken.is_empty())
}

/// Runs a soak with certificates that are renewed; true if all invariants held.
fn soak_with_renewals(args: &RenewalsArgs) -> Result<bool> {
    ensure!(
        args.renewals >= 2 && args.rate >= 2 && args.handshakes >= 2,
        "--renewals {} --rate {} --handshakes {}: at least 2 of each are needed, because there are two kinds of each",
        args.renewals,
        args.rate,
        args.handshakes
    );
    let plan = renewals::Plan {
        renewals: args.renewals,
        rate: args.rate,
        handshakes: args.handshakes,
        is_timed: !args.untimed,
    };
    let report = renewals::run(&plan)?;
    print!("{}", report.text());
    write(args.report.as_deref(), &report)?;
    Ok(report.broken.is_empty())
}

/// Runs a soak with a zone that changes; true if all invariants held.
fn soak_with_names(args: &NamesArgs) -> Result<bool> {
    ensure!(
        args.changes > 0 && args.rate > 0,
        "--changes {} --rate {}: at least one change is needed, and one request per second",
        args.changes,
        args.rate
    );
    let plan = names::Plan {
        changes: args.changes,
        rate: args.rate,
        is_timed: !args.untimed,
    };
    let report = names::run(&plan)?;
    print!("{}", report.text());
    write(args.report.as_deref(), &report)?;
    Ok(report.broken.is_empty())
}

/// Runs a soak of shared counters; true if the error was within its bound.
fn soak_of_counters(args: &CountersArgs) -> Result<bool> {
    ensure!(
        (1..=50).contains(&args.hosts) && args.seconds > 0 && (1..=200).contains(&args.per_second),
        "--hosts {} --seconds {} --per-second {}: write 1 to 50 hosts, at least a second, and 1 to 200 requests per second",
        args.hosts,
        args.seconds,
        args.per_second
    );
    let plan = counters::Plan {
        hosts: args.hosts,
        length: Duration::from_secs(args.seconds),
        per_second: args.per_second,
        burst: args.burst,
        interval: Duration::from_millis(args.interval_ms),
        kills: args.kills,
        is_timed: !args.untimed,
    };
    let report = counters::run(&plan)?;
    print!("{}", report.text());
    write(args.report.as_deref(), &report)?;
    Ok(report.broken.is_empty())
}

/// Runs a soak with a cluster whose nodes fail; true if all invariants held.
fn soak_with_galera(args: &GaleraArgs) -> Result<bool> {
    ensure!(
        args.changes > args.faults,
        "--faults {} --changes {}: at least one change more than faults is needed, because each fault has one",
        args.faults,
        args.changes
    );
    let plan = galera::Plan {
        faults: args.faults,
        changes: args.changes,
        is_timed: !args.untimed,
    };
    let report = galera::run(&plan);
    print!("{}", report.text());
    write(args.report.as_deref(), &report)?;
    Ok(report.broken.is_empty())
}

/// Runs a soak with many hosts; true if all invariants held.
fn soak_with_a_fleet(args: &FleetArgs) -> Result<bool> {
    ensure!(
        args.hosts > 0 && args.tenants > 0 && args.changes >= 4 && args.seconds > 0,
        "--hosts {} --tenants {} --changes {} --seconds {}: at least one of each is needed, and four changes, because there are three kinds of them",
        args.hosts,
        args.tenants,
        args.changes,
        args.seconds
    );
    ensure!(
        args.rows <= MOST_ROWS,
        "--rows {}: write a number up to {MOST_ROWS}",
        args.rows
    );
    let plan = fleet::Plan {
        is_cluster: args.galera,
        hosts: args.hosts,
        rows: args.rows,
        tenants: args.tenants,
        changes: args.changes,
        idle: Duration::from_secs(args.seconds),
    };
    let report = fleet::run(&plan)?;
    print!("{}", report.text());
    write(args.report.as_deref(), &report)?;
    Ok(report.broken.is_empty())
}

/// Most rows of an address table that do not include the addresses of hosts: subnets from 10.0.0.0/24 to 126.255.255.0/24.
const MOST_ROWS: u32 = 117 * 65_536;

/// Runs a soak with an address that moves; true if all invariants held.
fn soak_with_vip(args: &VipArgs) -> Result<bool> {
    ensure!(
        args.moves > 0 && args.rate > 0,
        "--moves {} --rate {}: at least one move is needed, and one request per second",
        args.moves,
        args.rate
    );
    let plan = vip::Plan {
        moves: args.moves,
        rate: args.rate,
        by_keepalived: args.keepalived,
        is_timed: !args.untimed,
    };
    let report = vip::run(&plan)?;
    print!("{}", report.text());
    write(args.report.as_deref(), &report)?;
    Ok(report.broken.is_empty())
}

fn write(path: Option<&Path>, report: &impl Serialize) -> Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let json = serde_json::to_string_pretty(report)?;
    std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}
