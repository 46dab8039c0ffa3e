//! `cargo xtask bench`: Portcullis, Kamailio with the configuration of the README, and a bare UDP echo server, side by side.

mod beside;
mod calls;
mod comparisons;
mod control;
mod database;
mod datagrams;
mod edge;
mod figures;
mod lingering;
mod load;
mod machine;
mod memory;
mod million;
mod neighbours;
mod own_code;
mod pinned;
mod plan;
mod reload;
mod report;
mod servers;
mod set_up;
mod targets;
mod tenants;
mod upgrades;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use self::calls::Longest;
use self::database::Database;
use self::datagrams::Shaped;
use self::edge::Edge;
use self::edge::servers::Site;
use self::figures::Figures;
use self::lingering::Lingering;
use self::machine::Machine;
use self::memory::Attacked;
use self::million::Million;
use self::neighbours::{Check, Neighbours};
use self::plan::{Pace, Part, Server, Subject, Task};
use self::reload::{Reload, Source};
use self::report::{Outcome, Peers};
use self::servers::{Programs, Running};
use self::set_up::SetUpBeside;
use self::targets::Parts;
use self::tenants::Crowded;
use self::upgrades::Upgrades;
use crate::build::{self, Profile};
use crate::debian::{self, Need};
use crate::workspace::{Workspace, root};

/// Measure Portcullis, Kamailio and a bare UDP echo server
///
/// Each server runs with one worker on one core; load generator, callee and MariaDB run on another. Every measurement is repeated in
/// rounds, and the medians are reported. The table shows CPU time per request, followed by the project's targets and the values reached.
/// The results are also written as JSON to target/bench.
///
/// The parts `tls`, `handshakes`, `idle`, `storm` and `certificates` need openssl, and for Kamailio its modules tls and websocket. `idle` opens
/// 10,000 connections, for which 16,384 open files must be permitted (`ulimit -Hn`).
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// One short round, for a first impression
    #[arg(long)]
    quick: bool,
    /// Measure this part only; may be given several times
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Measure this server only; may be given several times
    #[arg(long, value_name = "SERVER")]
    server: Vec<Server>,
    /// Number of rounds (5, or 1 with --quick)
    #[arg(long)]
    rounds: Option<usize>,
    /// Length of a measurement in seconds (3, or 1 with --quick)
    #[arg(long)]
    seconds: Option<f64>,
    /// Also write the JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Do not build; measure what has been built before
    #[arg(long)]
    no_build: bool,
}

pub(crate) fn run(args: BenchArgs) -> Result<()> {
    let pace = Pace::new(args.quick, args.rounds, args.seconds)?;
    let programs = programs(args.no_build)?;
    let mut bench = Bench {
        programs,
        database: None,
        figures: Figures::default(),
        problems: Vec::new(),
        pace,
    };
    let machine = Machine::new();
    let peers = bench.prepare(&args)?;
    let tasks = bench.tasks(&args);
    let minutes = bench.pace.expected(&tasks).as_secs_f64() / 60.0;
    if minutes > 0.0 {
        eprintln!("Measuring the cost of requests for about {minutes:.1} minutes.");
    }
    for round in 0..bench.pace.rounds {
        for (subject, tasks) in &tasks {
            bench.subject(round, *subject, tasks);
        }
    }
    let reloads = bench.reloads(&args);
    let neighbours = bench.neighbours(&args);
    let tenants = bench.tenants(&args);
    let million = bench.million(&args);
    let datagrams = bench.datagrams(&args);
    let attacks = bench.attacks(&args);
    let calls = bench.calls(&args);
    let lingering = bench.lingering(&args);
    let set_ups = bench.set_ups(&args);
    let upgrades = bench.upgrades(&args);
    let edge = bench.edge(&args);

    let outcome = Outcome::new(
        machine,
        peers,
        bench.pace,
        &bench.figures,
        Parts {
            reloads,
            neighbours,
            tenants,
            million,
            datagrams,
            attacks,
            calls,
            lingering,
            set_ups,
            upgrades,
            edge,
        },
        bench.problems,
    );
    print!("{outcome}");
    for file in outcome.write(
        &Workspace::own()?.target.join("bench"),
        args.json.as_deref(),
    )? {
        println!("JSON: {}", file.display());
    }
    if outcome.has_problems() {
        bail!("not everything could be measured");
    }
    Ok(())
}

/// A benchmark in progress.
struct Bench {
    programs: Programs,
    /// `None` without MariaDB.
    database: Option<Database>,
    figures: Figures,
    /// What could not be measured, with the reason.
    problems: Vec<String>,
    pace: Pace,
}

impl Bench {
    /// Finds or installs the other programs, and fills the database.
    fn prepare(&mut self, args: &BenchArgs) -> Result<Peers> {
        let installed = debian::require(&[
            Need {
                name: "kamailio",
                package: "kamailio",
            },
            Need {
                name: servers::KAMAILIO_MYSQL,
                package: "kamailio-mysql-modules",
            },
            Need {
                name: "mariadbd",
                package: "mariadb-server",
            },
        ]);
        if let Err(error) = installed {
            eprintln!("warning: {error:#}");
        }
        if Part::EDGE.iter().any(|part| wants(args, *part))
            && let Err(error) = debian::require(&[
                Need {
                    name: "openssl",
                    package: "openssl",
                },
                Need {
                    name: edge::servers::KAMAILIO_TLS,
                    package: "kamailio-tls-modules",
                },
                Need {
                    name: edge::servers::KAMAILIO_WEBSOCKET,
                    package: "kamailio-websocket-modules",
                },
            ])
        {
            eprintln!("warning: {error:#}");
        }
        let peers = Peers {
            kamailio: self.note(servers::kamailio_version()),
            mariadb: self.note(Database::version()),
        };
        if peers.mariadb.is_some() {
            self.database = Some(fill(args, &self.pace).context("MariaDB")?);
        }
        Ok(peers)
    }

    /// Returns the tasks that are selected and can be measured.
    fn tasks(&mut self, args: &BenchArgs) -> Vec<(Subject, Vec<Task>)> {
        let mut tasks = plan::matrix(&args.only, &args.server);
        let has_portcullis = self.has_portcullis();
        let wants_portcullis = args.server.is_empty() || args.server.contains(&Server::Portcullis);
        if wants_portcullis && !has_portcullis {
            self.problems.push(format!(
                "Portcullis: {} or {} is missing",
                self.programs.portcullis.display(),
                self.programs.policy.display()
            ));
        }
        let has_kamailio = servers::kamailio_version().is_ok() && self.database.is_some();
        let has_database = self.database.is_some();
        tasks.retain(|(subject, _)| match subject.server {
            Server::Echo => true,
            Server::Portcullis | Server::PortcullisStateless => {
                has_portcullis && (has_database || subject.rows == Some(plan::Rows::Few))
            }
            Server::Kamailio | Server::KamailioBare => has_kamailio,
        });
        tasks
    }

    /// Starts a server, runs its tasks one after the other, and stops it.
    fn subject(&mut self, round: usize, subject: Subject, tasks: &[Task]) {
        let url = self.database.as_ref().zip(subject.rows);
        let url = url.map(|(database, rows)| database.url(database::name(rows)));
        let core = self.pace.server_core;
        let started = Running::start(subject, core, &self.programs, url.as_deref());
        let Some(running) = self.note(started.with_context(|| subject.to_string())) else {
            return;
        };
        for task in tasks {
            let measured = load::measure(*task, &running, &self.programs, &self.pace);
            let measured = measured.with_context(|| format!("{subject}: {task}"));
            if let Some(report) = self.note(measured) {
                eprintln!(
                    "{}/{}  {subject}: {task}: {:.2} µs",
                    round + 1,
                    self.pace.rounds,
                    report.window.server.cpu_us
                );
                self.figures.add((*task, subject), round, report);
            }
        }
    }

    fn reloads(&mut self, args: &BenchArgs) -> Vec<Reload> {
        let can = self.has_portcullis() && wants_ours(args, Part::Reload);
        let mut reloads = Vec::new();
        for source in [Source::MariaDb, Source::Sqlite] {
            let Some(database) = self.database.as_ref().filter(|_| can) else {
                break;
            };
            let reload = reload::measure(source, &self.programs, database, &self.pace);
            let reload = reload.with_context(|| format!("reloads from {source} beside requests"));
            reloads.extend(self.note(reload));
        }
        reloads
    }

    fn neighbours(&mut self, args: &BenchArgs) -> Vec<Neighbours> {
        let can = self.has_portcullis() && wants_ours(args, Part::Neighbours);
        let mut all = Vec::new();
        for check in [Check::Breaker, Check::Share].into_iter().filter(|_| can) {
            let measured = neighbours::measure(check, &self.programs, &self.pace);
            all.extend(self.note(measured.context("a tenant beside hostile ones")));
        }
        all
    }

    fn tenants(&mut self, args: &BenchArgs) -> Vec<Crowded> {
        if !(self.has_portcullis() && wants_ours(args, Part::Tenants)) {
            return Vec::new();
        }
        let measured = tenants::measure(&self.programs, &self.pace);
        self.note(measured.context("many tenants"))
            .unwrap_or_default()
    }

    fn million(&mut self, args: &BenchArgs) -> Option<Million> {
        let can = self.has_portcullis() && wants_ours(args, Part::Million);
        let database = self.database.as_ref().filter(|_| can)?;
        let million = million::measure(&self.programs, database, &self.pace);
        self.note(million.context("1,000,000 rows"))
    }

    fn datagrams(&mut self, args: &BenchArgs) -> Vec<Shaped> {
        if !(self.has_portcullis() && wants_ours(args, Part::Datagrams)) {
            return Vec::new();
        }
        let measured = datagrams::measure(&self.programs, &self.pace);
        let measured = measured.context("large datagrams of every shape");
        self.note(measured).unwrap_or_default()
    }

    fn attacks(&mut self, args: &BenchArgs) -> Vec<Attacked> {
        if !(self.has_portcullis() && wants_ours(args, Part::Memory)) {
            return Vec::new();
        }
        let measured = memory::measure(&self.programs);
        self.note(measured.context("attacks on memory"))
            .unwrap_or_default()
    }

    fn calls(&mut self, args: &BenchArgs) -> Vec<Longest> {
        if !wants_ours(args, Part::Calls) {
            return Vec::new();
        }
        let measured = calls::measure();
        self.note(measured.context("the longest calls"))
            .unwrap_or_default()
    }

    fn lingering(&mut self, args: &BenchArgs) -> Option<Lingering> {
        if !(self.has_portcullis() && wants_ours(args, Part::Lingering)) {
            return None;
        }
        let measured = lingering::measure(&self.programs, &self.pace);
        self.note(measured.context("ended transactions"))
    }

    fn set_ups(&mut self, args: &BenchArgs) -> Vec<SetUpBeside> {
        if !(self.has_portcullis() && wants_ours(args, Part::SetUp)) {
            return Vec::new();
        }
        let measured = set_up::measure(&self.programs, &self.pace);
        self.note(measured.context("the set-up of calls"))
            .unwrap_or_default()
    }

    fn upgrades(&mut self, args: &BenchArgs) -> Option<Upgrades> {
        let can = self.has_portcullis() && wants_ours(args, Part::Upgrade);
        let measured = can.then(|| upgrades::measure(&self.programs, &self.pace))?;
        self.note(measured.context("upgrades of a running host"))
    }

    /// What only the edge of a network needs. Kamailio is measured beside Portcullis if it is there.
    fn edge(&mut self, args: &BenchArgs) -> Edge {
        let mut servers = Vec::new();
        let is_wanted = |server| args.server.is_empty() || args.server.contains(&server);
        if self.has_portcullis() && is_wanted(Server::Portcullis) {
            servers.push(Server::Portcullis);
        }
        let theirs = [Server::Kamailio, Server::KamailioBare];
        if servers::kamailio_version().is_ok() && self.database.is_some() {
            servers.extend(theirs.into_iter().filter(|server| is_wanted(*server)));
        }
        let site = Site {
            programs: &self.programs,
            database: self.database.as_ref(),
            pace: &self.pace,
        };
        let mut errors = Vec::new();
        let mut edge = Edge::default();
        if wants(args, Part::Tls) {
            edge.requests = edge::requests::measure(&servers, &site, &mut errors);
        }
        if wants(args, Part::Handshakes) {
            edge.handshakes = edge::handshakes::measure(&servers, &site, &mut errors);
        }
        if wants(args, Part::Idle) {
            edge.idle = edge::idle::measure(&servers, &site, &mut errors);
        }
        if wants(args, Part::Storm) {
            edge.storms = edge::storms::measure(&servers, &site, &mut errors);
        }
        if self.has_portcullis() && wants_ours(args, Part::Certificates) {
            let renewals = edge::certificates::measure(&site);
            let renewals = renewals.context("renewals of certificates");
            edge.renewals = renewals.map_err(|error| errors.push(error)).ok();
        }
        if self.has_portcullis() && wants_ours(args, Part::Dispatcher) {
            let dispatched = edge::dispatcher::measure(&site);
            let dispatched = dispatched.context("sets of the dispatcher");
            edge.dispatcher = dispatched
                .map_err(|error| errors.push(error))
                .unwrap_or_default();
        }
        for error in errors {
            self.note::<()>(Err(error));
        }
        edge
    }

    fn has_portcullis(&self) -> bool {
        self.programs.portcullis.exists() && self.programs.policy.exists()
    }

    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                eprintln!("warning: {error:#}");
                self.problems.push(format!("{error:#}"));
                None
            }
        }
    }
}

/// Whether this part is selected.
fn wants(args: &BenchArgs, part: Part) -> bool {
    args.only.is_empty() || args.only.contains(&part)
}

/// Whether this part, which only Portcullis has, is selected.
fn wants_ours(args: &BenchArgs, part: Part) -> bool {
    wants(args, part) && (args.server.is_empty() || args.server.contains(&Server::Portcullis))
}

fn fill(args: &BenchArgs, pace: &Pace) -> Result<Database> {
    let schema = database::schema(&root())?;
    let database = Database::start(pace.load_core)?;
    for rows in [plan::Rows::Few, plan::Rows::Many] {
        database.fill(rows, &schema)?;
    }
    if wants_ours(args, Part::Million) {
        database.fill_million(&schema)?;
    }
    Ok(database)
}

fn programs(as_built: bool) -> Result<Programs> {
    let workspace = Workspace::own()?;
    if !as_built {
        build::host(&workspace, Profile::Dist)?;
        build::program(
            &workspace,
            Profile::Dist,
            "portcullis-load",
            "portcullis-load",
        )?;
        build::policies_with_tests(&workspace)?;
    }
    let policies = workspace.target.join("policies");
    let programs = Programs {
        portcullis: build::built(&workspace, Profile::Dist, "portcullis"),
        policy: policies.join("address-acl.wasm"),
        hostile: policies.join("hostile.wasm"),
        failover: policies.join("failover.wasm"),
        dispatching: policies.join("dispatching.wasm"),
        load: build::built(&workspace, Profile::Dist, "portcullis-load"),
    };
    // Some parts need minutes before they start the first of these.
    for file in programs.files() {
        ensure!(
            file.is_file(),
            "{} is missing: run without --no-build",
            file.display()
        );
    }
    Ok(programs)
}
