//! `cargo xtask soak`

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::build::{self, Profile};
use crate::debian::{self, GALERA, KNOT, MARIADB, REDIS};
use crate::process::{cargo, run as run_command};
use crate::workspace::{Workspace, root};

/// Run one host for an hour under traffic, changes, attacks and failures, and watch its invariants
///
/// Every request of the traffic is counted while policy files are swapped, policies are pushed, tables are reloaded, tenants misbehave, clients
/// are slow, the database stops, descriptors run short and the disk is full (as root). No request may be lost or answered twice, the host's
/// memory and descriptors may not grow, and the latency of honest requests has a bound. Attacks on the host's memory come first, each on its own
/// host. The report is printed and, as JSON, written to target/soak.json.
///
/// With --tenants, the host has many tenants instead, each with a policy file. Requests go to all tenants in random order, while the files of
/// random tenants are replaced. No request may be lost or answered twice, and the host's memory and descriptors may not grow. The report includes
/// the time until a changed file is live, and is also written to target/soak-tenants.json.
///
/// With --calls, that many calls go through a host that does nothing else, --rate of them per second. Each call must end, no transaction may be
/// left, and the host's memory may not grow. The report has the memory at the start, after each tenth of the calls, and at the end; it is also
/// written to target/soak-calls.json.
///
/// With --tls-reloads, the certificate of a host is renewed that many times, by good files and by files that cannot be used in turn, beside --rate
/// requests per second over UDP and TLS and --handshakes handshakes per second. No request may be lost, no handshake may fail, each fault must be
/// named and leave the previous certificate in use, and the host's memory and descriptors may not grow. The report is also written to
/// target/soak-renewals.json.
///
/// With --zone-changes, the next hop of a host is a name whose address changes that many times beside --rate requests per second. Each change must be
/// followed within the TTL and the time of a query, and no request may be lost. The report is also written to target/soak-names.json.
///
/// With --shared-counters, three hosts hold one limit together through Redis, which is killed that many times. What they admit too much must be within
/// the bound of docs/fleet.md. The report is also written to target/soak-counters.json.
///
/// With --address-moves, two hosts in networks of their own share an address, which moves between them that many times beside --rate requests per
/// second: a host is drained, killed, or only loses the address. No request may be without an answer, and calls go on. The report, with what was sent
/// again, is also written to target/soak-vip.json.
///
/// With --hosts, that many hosts share one MariaDB with 100,000 rows of addresses and 100 tenants. They are started at once, with and without compiled
/// code; rows, policies and tenants change; the database is restarted. The report has what all of this costs the database, and how soon each change is
/// live on all hosts; it is also written to target/soak-fleet.json. Each host takes some hundred MiB. With --galera, the database is a Galera cluster of
/// three nodes, over which the hosts spread, and one of the nodes is restarted.
///
/// With --database-faults, three hosts use a Galera cluster of three nodes, of which one at a time is killed, stopped, cut off, or loses its state, that
/// many times in all. Ten times as many rows change, and policies are pushed. No verdict may be wrong, no acknowledged push may be lost, and 99 of 100
/// changes must be live on all hosts within a second while all nodes serve. The report is also written to target/soak-galera.json.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Duration in seconds
    #[arg(long, value_name = "N", default_value_t = 3600)]
    seconds: u32,
    /// Requests per second of the counted traffic, or calls per second [default: 2000; with --tls-reloads, --zone-changes and --address-moves 5000]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Number of tenants, for a soak of many tenants
    #[arg(long, value_name = "N")]
    tenants: Option<u32>,
    /// Number of calls, for a soak of calls
    #[arg(long, value_name = "N", conflicts_with_all = ["tenants", "seconds"])]
    calls: Option<u64>,
    /// Number of renewals of a certificate, for a soak of these
    #[arg(long, value_name = "N", conflicts_with_all = ["tenants", "calls", "seconds"])]
    tls_reloads: Option<u64>,
    /// Handshakes per second beside renewals of a certificate
    #[arg(
        long,
        value_name = "N",
        default_value_t = 500,
        requires = "tls_reloads"
    )]
    handshakes: u32,
    /// Number of changes of a zone, for a soak of these
    #[arg(long, value_name = "N", conflicts_with_all = ["tenants", "calls", "seconds", "tls_reloads"])]
    zone_changes: Option<u64>,
    /// Number of times that Redis is killed, for a soak of counters that hosts share
    #[arg(long, value_name = "N", conflicts_with_all = ["tenants", "calls", "seconds", "tls_reloads", "zone_changes"])]
    shared_counters: Option<u32>,
    /// Number of moves of an address between two hosts, for a soak of these; as root
    #[arg(long, value_name = "N", conflicts_with_all = ["tenants", "calls", "seconds", "tls_reloads", "zone_changes"])]
    address_moves: Option<u64>,
    /// Number of hosts on one database, for a soak of a fleet
    #[arg(long, value_name = "N", conflicts_with_all = ["tenants", "calls", "seconds", "rate", "tls_reloads", "zone_changes"])]
    hosts: Option<u32>,
    /// Let the database of the fleet be a Galera cluster of three nodes
    #[arg(long, requires = "hosts")]
    galera: bool,
    /// Number of faults of the nodes of a Galera cluster, for a soak of these
    #[arg(long, value_name = "N", conflicts_with_all = ["tenants", "calls", "seconds", "rate", "tls_reloads", "zone_changes", "hosts"])]
    database_faults: Option<u64>,
}

/// Requests per second, and calls per second.
const RATE: u32 = 2000;

/// Changes of rows for each fault of a node: most of them happen while all nodes serve.
const CHANGES_FOR_A_FAULT: u64 = 10;

/// Requests per second beside changes, each of which takes moments.
const RATE_BESIDE_CHANGES: u32 = 5000;

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::own()?;
    if let Some(tenants) = args.tenants {
        build::policies_with_tests(&workspace)?;
        let soak = TenantsSoak {
            tenants,
            seconds: args.seconds,
            rate: args.rate.unwrap_or(RATE),
            turned_away: 0,
        };
        return soak.run(&workspace, &build::host(&workspace, Profile::Dist)?);
    }
    if let Some(calls) = args.calls {
        build::policies_with_tests(&workspace)?;
        let soak = CallsSoak {
            calls,
            rate: args.rate.unwrap_or(RATE),
        };
        return soak.run(&workspace, &build::host(&workspace, Profile::Dist)?);
    }
    if let Some(renewals) = args.tls_reloads {
        build::policies_with_tests(&workspace)?;
        let soak = RenewalsSoak {
            renewals,
            rate: args.rate.unwrap_or(RATE_BESIDE_CHANGES),
            handshakes: args.handshakes,
            is_timed: true,
        };
        return soak.run(&workspace, &build::host(&workspace, Profile::Dist)?);
    }
    if let Some(changes) = args.zone_changes {
        debian::require(&[KNOT])?;
        build::policies_with_tests(&workspace)?;
        let soak = NamesSoak {
            changes,
            rate: args.rate.unwrap_or(RATE_BESIDE_CHANGES),
            is_timed: true,
        };
        return soak.run(&workspace, &build::host(&workspace, Profile::Dist)?);
    }
    if let Some(kills) = args.shared_counters {
        debian::require(&[REDIS])?;
        build::policies_with_tests(&workspace)?;
        let soak = CountersSoak {
            seconds: 60,
            kills,
            is_timed: true,
        };
        return soak.run(&workspace, &build::host(&workspace, Profile::Dist)?);
    }
    if let Some(moves) = args.address_moves {
        build::policies_with_tests(&workspace)?;
        let soak = VipSoak {
            moves,
            rate: args.rate.unwrap_or(RATE_BESIDE_CHANGES),
            is_timed: true,
        };
        return soak.run(&workspace, &build::host(&workspace, Profile::Dist)?);
    }
    debian::require(&MARIADB)?;
    if let Some(faults) = args.database_faults {
        debian::require(&GALERA)?;
        build::policies_with_tests(&workspace)?;
        let soak = GaleraSoak {
            faults,
            changes: CHANGES_FOR_A_FAULT * faults,
        };
        return soak.run(&workspace, &build::host(&workspace, Profile::Dist)?);
    }
    if let Some(hosts) = args.hosts {
        if args.galera {
            debian::require(&GALERA)?;
        }
        build::policies_with_tests(&workspace)?;
        let soak = FleetSoak {
            is_cluster: args.galera,
            hosts,
            rows: 100_000,
            tenants: 100,
            changes: 200,
            // Hosts close connections that they do not need after a minute.
            seconds: 90,
        };
        return soak.run(&workspace, &build::host(&workspace, Profile::Dist)?);
    }
    build::policies_with_tests(&workspace)?;
    let portcullis = build::host(&workspace, Profile::Dist)?;
    let soak = Soak {
        seconds: args.seconds,
        rate: args.rate.unwrap_or(RATE),
        // An optimised build on an idle machine answers within a fraction of this.
        p99_ms: 100,
        turned_away: 0,
    };
    memory(20, &workspace, &portcullis)?;
    soak.run(&workspace, &portcullis)
}

/// Attacks on the memory of this binary, each this long.
pub(crate) fn memory(seconds: u32, workspace: &Workspace, portcullis: &Path) -> Result<()> {
    let mut memory = program(workspace, portcullis);
    run_command(memory.arg("memory").arg(format!("--seconds={seconds}")))
}

/// One soak.
pub(crate) struct Soak {
    pub(crate) seconds: u32,
    pub(crate) rate: u32,
    pub(crate) p99_ms: u32,
    /// Of a thousand honest requests.
    pub(crate) turned_away: u32,
}

impl Soak {
    /// Runs it against this binary.
    pub(crate) fn run(&self, workspace: &Workspace, portcullis: &Path) -> Result<()> {
        let mut soak = program(workspace, portcullis);
        soak.arg("run")
            .arg(format!("--seconds={}", self.seconds))
            .arg(format!("--rate={}", self.rate))
            .arg(format!("--p99-ms={}", self.p99_ms))
            .arg(format!("--turned-away={}", self.turned_away))
            .arg("--report")
            .arg(workspace.target.join("soak.json"));
        run_command(&mut soak)
    }
}

/// One soak of many tenants.
pub(crate) struct TenantsSoak {
    pub(crate) tenants: u32,
    pub(crate) seconds: u32,
    pub(crate) rate: u32,
    /// Of a thousand requests.
    pub(crate) turned_away: u32,
}

impl TenantsSoak {
    /// Runs it against this binary.
    pub(crate) fn run(&self, workspace: &Workspace, portcullis: &Path) -> Result<()> {
        let mut soak = program(workspace, portcullis);
        soak.arg("tenants")
            .arg(format!("--tenants={}", self.tenants))
            .arg(format!("--seconds={}", self.seconds))
            .arg(format!("--rate={}", self.rate))
            .arg(format!("--turned-away={}", self.turned_away))
            .arg("--report")
            .arg(workspace.target.join("soak-tenants.json"));
        run_command(&mut soak)
    }
}

/// One soak of calls.
pub(crate) struct CallsSoak {
    pub(crate) calls: u64,
    pub(crate) rate: u32,
}

impl CallsSoak {
    /// Runs it against this binary.
    pub(crate) fn run(&self, workspace: &Workspace, portcullis: &Path) -> Result<()> {
        let mut soak = program(workspace, portcullis);
        soak.arg("calls")
            .arg(format!("--calls={}", self.calls))
            .arg(format!("--rate={}", self.rate))
            .arg("--report")
            .arg(workspace.target.join("soak-calls.json"));
        run_command(&mut soak)
    }
}

/// One soak of renewed certificates.
pub(crate) struct RenewalsSoak {
    pub(crate) renewals: u64,
    pub(crate) rate: u32,
    pub(crate) handshakes: u32,
    /// Whether times, rates and overload are judged: the machine has no other work.
    pub(crate) is_timed: bool,
}

impl RenewalsSoak {
    /// Runs it against this binary.
    pub(crate) fn run(&self, workspace: &Workspace, portcullis: &Path) -> Result<()> {
        let mut soak = program(workspace, portcullis);
        soak.arg("renewals")
            .arg(format!("--renewals={}", self.renewals))
            .arg(format!("--rate={}", self.rate))
            .arg(format!("--handshakes={}", self.handshakes))
            .args((!self.is_timed).then_some("--untimed"))
            .arg("--report")
            .arg(workspace.target.join("soak-renewals.json"));
        run_command(&mut soak)
    }
}

/// One soak with a zone that changes.
pub(crate) struct NamesSoak {
    pub(crate) changes: u64,
    pub(crate) rate: u32,
    /// Whether times, rates and overload are judged: the machine has no other work.
    pub(crate) is_timed: bool,
}

impl NamesSoak {
    /// Runs it against this binary.
    pub(crate) fn run(&self, workspace: &Workspace, portcullis: &Path) -> Result<()> {
        let mut soak = program(workspace, portcullis);
        soak.arg("names")
            .arg(format!("--changes={}", self.changes))
            .arg(format!("--rate={}", self.rate))
            .args((!self.is_timed).then_some("--untimed"))
            .arg("--report")
            .arg(workspace.target.join("soak-names.json"));
        run_command(&mut soak)
    }
}

/// One soak of counters that hosts share.
pub(crate) struct CountersSoak {
    pub(crate) seconds: u64,
    pub(crate) kills: u32,
    /// Whether times are judged: the machine has no other work.
    pub(crate) is_timed: bool,
}

impl CountersSoak {
    /// Runs it against this binary.
    pub(crate) fn run(&self, workspace: &Workspace, portcullis: &Path) -> Result<()> {
        let mut soak = program(workspace, portcullis);
        soak.arg("counters")
            .arg(format!("--seconds={}", self.seconds))
            .arg(format!("--kills={}", self.kills))
            .args((!self.is_timed).then_some("--untimed"))
            .arg("--report")
            .arg(workspace.target.join("soak-counters.json"));
        run_command(&mut soak)
    }
}

/// A soak of two hosts with one address, as root.
pub(crate) struct VipSoak {
    pub(crate) moves: u64,
    /// Requests per second.
    pub(crate) rate: u32,
    /// Whether rates and what is sent again are judged: the machine has no other work.
    pub(crate) is_timed: bool,
}

impl VipSoak {
    /// Runs it against this binary.
    pub(crate) fn run(&self, workspace: &Workspace, portcullis: &Path) -> Result<()> {
        let mut soak = program(workspace, portcullis);
        soak.arg("vip")
            .arg(format!("--moves={}", self.moves))
            .arg(format!("--rate={}", self.rate))
            .args((!self.is_timed).then_some("--untimed"))
            .arg("--report")
            .arg(workspace.target.join("soak-vip.json"));
        run_command(&mut soak)
    }
}

/// A soak with many hosts on one database.
pub(crate) struct FleetSoak {
    /// Whether the database is a Galera cluster.
    pub(crate) is_cluster: bool,
    pub(crate) hosts: u32,
    /// Rows of the address table.
    pub(crate) rows: u32,
    pub(crate) tenants: u32,
    pub(crate) changes: u32,
    /// How long the idle fleet is watched.
    pub(crate) seconds: u32,
}

impl FleetSoak {
    /// Runs it against this binary.
    pub(crate) fn run(&self, workspace: &Workspace, portcullis: &Path) -> Result<()> {
        let mut soak = program(workspace, portcullis);
        soak.arg("fleet")
            .args(self.is_cluster.then_some("--galera"))
            .arg(format!("--hosts={}", self.hosts))
            .arg(format!("--rows={}", self.rows))
            .arg(format!("--tenants={}", self.tenants))
            .arg(format!("--changes={}", self.changes))
            .arg(format!("--seconds={}", self.seconds))
            .arg("--report")
            .arg(workspace.target.join("soak-fleet.json"));
        run_command(&mut soak)
    }
}

/// A soak of a Galera cluster whose nodes fail.
pub(crate) struct GaleraSoak {
    pub(crate) faults: u64,
    /// Changes of rows.
    pub(crate) changes: u64,
}

impl GaleraSoak {
    /// Runs it against this binary.
    pub(crate) fn run(&self, workspace: &Workspace, portcullis: &Path) -> Result<()> {
        let mut soak = program(workspace, portcullis);
        soak.arg("galera")
            .arg(format!("--faults={}", self.faults))
            .arg(format!("--changes={}", self.changes))
            .arg("--report")
            .arg(workspace.target.join("soak-galera.json"));
        run_command(&mut soak)
    }
}

fn program(workspace: &Workspace, portcullis: &Path) -> Command {
    let mut program = cargo();
    program
        .current_dir(root())
        .args(["run", "--quiet", "--package", "portcullis-soak", "--"])
        .env("PORTCULLIS_BIN", portcullis)
        .env("PORTCULLIS_POLICIES", workspace.target.join("policies"));
    program
}
