//! `portcullis check`: every error in configuration, database and policy, before a host is started.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use futures_util::future::join_all;
use portcullis_config::{
    Adopt, Config, ConfigError, DATABASE_VARIABLE, DEFAULT_FILE, DEFAULTS, Domain, Host, Hosts,
    Problem, SYSTEM_FILE, SeatConfig,
};
use portcullis_control::Listening;
use portcullis_control::memory_maps::MemoryMaps;
use portcullis_policy::Runtime;
use portcullis_rollout::compiler::{self, CodeCacheState};
use portcullis_rollout::policy_files::{PolicyFileError, PolicyFiles};
use portcullis_rollout::resolve::Dns;
use portcullis_sip::Lookup;

use crate::exchange;
use crate::modes;
use crate::rights;
use crate::seal_keys::{self, SealKeys};

use serde_json::{Value, json};

use super::check_hops;
use super::check_listen;
use super::check_peers;
use super::check_tables;
use super::check_tls;
use super::database::block_on;
use super::findings::Finding;
use super::policy::state_of;
use super::print::{Format, clean, count, stdout, write_json};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print a configuration file with every key, its default and its meaning, and check nothing
    #[arg(long)]
    defaults: bool,
    /// Fail only if a host could not start, or would lack a policy file: other errors, such as rows, lines and stored tenants that cannot be used,
    /// are listed, and are no failure
    #[arg(long, conflicts_with = "defaults")]
    start: bool,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(args: &Args, named: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut out = stdout();
    if args.defaults {
        out.write_all(DEFAULTS.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut findings = Findings::default();
    check(named, &mut findings)?;
    match args.format.json {
        true => write_json(&mut out, &findings.as_json())?,
        false => findings.write(&mut out)?,
    }
    let counted = match args.start {
        true => findings.fatal,
        false => findings.wrong,
    };
    Ok(match counted {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// The findings, in the order of the checks.
#[derive(Default)]
struct Findings {
    /// The part that was checked, and what was found.
    all: Vec<(String, Finding)>,
    /// Number of errors.
    wrong: u64,
    /// Of these, those with which a host does not start, or lacks a policy file.
    fatal: u64,
}

impl Findings {
    fn good(&mut self, what: &str, text: impl AsRef<str>) {
        self.add(what, Finding::Good(text.as_ref().to_owned()));
    }

    fn odd(&mut self, what: &str, text: impl AsRef<str>) {
        self.add(what, Finding::Odd(text.as_ref().to_owned()));
    }

    fn wrong(&mut self, what: &str, text: impl AsRef<str>) {
        self.add(what, Finding::Wrong(text.as_ref().to_owned()));
        self.wrong += 1;
        self.fatal += 1;
    }

    fn skipped(&mut self, what: &str, text: String) {
        self.add(what, Finding::Skipped(text));
        self.wrong += 1;
    }

    fn add(&mut self, what: &str, finding: Finding) {
        self.all.push((what.to_owned(), finding));
    }

    fn extend(&mut self, what: &str, findings: Vec<Finding>) {
        for finding in findings {
            match finding {
                Finding::Good(text) => self.good(what, text),
                Finding::Odd(text) => self.odd(what, text),
                Finding::Skipped(text) => self.skipped(what, text),
                Finding::Wrong(text) => self.wrong(what, text),
            }
        }
    }

    fn append(&mut self, other: Self) {
        self.all.extend(other.all);
        self.wrong += other.wrong;
        self.fatal += other.fatal;
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        for (what, finding) in &self.all {
            let (kind, text) = match finding {
                Finding::Good(text) => ("", text),
                Finding::Odd(text) => ("warning: ", text),
                Finding::Skipped(text) | Finding::Wrong(text) => ("error: ", text),
            };
            writeln!(out, "{what:<14} {kind}{}", clean(text))?;
        }
        match self.wrong {
            0 => writeln!(out, "no errors"),
            n => writeln!(out, "{}", count(n, "problem")),
        }
    }

    /// The findings for programs.
    fn as_json(&self) -> Value {
        let all = self.all.iter().map(|(what, finding)| {
            let mut finding = finding.as_json();
            finding["part"] = what.as_str().into();
            finding
        });
        json!({"problems": self.wrong, "findings": all.collect::<Vec<_>>()})
    }
}

fn check(named: Option<&Path>, findings: &mut Findings) -> anyhow::Result<()> {
    let Some(path) = named.map(Path::to_owned).or_else(Config::default_file) else {
        findings.good(
            "configuration",
            format!("the defaults: there is no {DEFAULT_FILE} here and no {SYSTEM_FILE}"),
        );
        let config = with_environment(Config::default(), findings);
        return check_rest(&config, &[], findings);
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => {
            findings.wrong(
                "configuration",
                ConfigError::Unreadable { path, source }.to_string(),
            );
            return Ok(());
        }
    };
    let (config, problems) = Config::parse_as_far_as_possible(&text);
    if problems.is_empty() {
        findings.good("configuration", path.display().to_string());
    }
    for problem in &problems {
        findings.wrong("configuration", format!("{}:{problem}", path.display()));
    }
    let config = with_environment(config, findings);
    check_rest(&config, &problems, findings)
}

/// The configuration with what the environment sets.
fn with_environment(config: Config, findings: &mut Findings) -> Config {
    match config.clone().with_environment() {
        Ok(changed) => {
            if changed.database.url != config.database.url {
                let text = format!("the database is that of {DATABASE_VARIABLE}");
                findings.good("environment", text);
            }
            changed
        }
        Err(error) => {
            findings.wrong("environment", error.to_string());
            config
        }
    }
}

/// Checks what the configuration refers to, as far as it could be parsed.
fn check_rest(
    config: &Config,
    problems: &[Problem],
    findings: &mut Findings,
) -> anyhow::Result<()> {
    // A file that is not TOML has no usable parts.
    let is_sound = |key: &str| {
        let concerns = |problem: &Problem| problem.key.is_empty() || problem.key.starts_with(key);
        !problems.iter().any(concerns)
    };
    for (what, found) in [("user", rights::user()), ("compiler", rights::compiler())] {
        match found {
            rights::Finding::Good(text) => findings.good(what, text),
            rights::Finding::Odd(text) => findings.odd(what, text),
        }
    }
    if is_sound("listen") {
        findings.extend("listen", check_listen::check(config));
    }
    // Which tables are required depends on the policies, which are reported after the tables.
    let mut policies = Findings::default();
    let used = match is_sound("policy") && is_sound("tenants") {
        true => check_policies(config, &mut policies),
        false => UsedTables::default(),
    };
    if is_sound("database") {
        findings.extend("database", check_tables::way(config));
        findings.extend("database", check_tables::servers(config)?);
        let found = check_tables::addresses(config, used.addresses)?;
        findings.extend("database", found);
        findings.extend("trusted", check_tables::trusted(config, used.trusted)?);
    }
    if is_sound("permissions") {
        findings.extend("rules", check_tables::rules(config));
    }
    if is_sound("dispatcher") && is_sound("database") {
        findings.extend("dispatcher", check_tables::dispatcher(config)?);
    }
    findings.append(policies);
    if is_sound("database") {
        findings.extend("pushed", check_tables::pushed(config)?);
    }
    if is_sound("tenants") && is_sound("database") {
        findings.extend("tenants", check_tables::tenants(config)?);
    }
    if is_sound("tenants")
        && let Some(maps) = MemoryMaps::of(config.tenants.len(), config)
        && let Some(problem) = maps.problem()
    {
        findings.odd("tenants", problem);
    }
    if is_sound("relay") {
        let has_sockets = is_sound("listen") && is_sound("sip");
        let dns = Dns::new(&config.resolver);
        block_on(async {
            check_names(config, &dns, findings).await;
            if has_sockets {
                findings.extend("relay", check_hops::check(config, &dns).await);
            }
        })?;
        if has_sockets {
            findings.extend("tls", check_tls::check(config));
        }
    }
    if is_sound("sip") {
        check_key_file(config, findings);
    }
    if is_sound("records") {
        check_records(config, findings);
    }
    if is_sound("fleet") {
        check_exchange(config, findings)?;
        findings.extend("fleet", check_peers::check(config));
    }
    if is_sound("control") {
        check_control(config, findings);
    }
    Ok(())
}

/// The host creates the key at its first start.
fn check_key_file(config: &Config, findings: &mut Findings) {
    let file = config.sip.key_file.clone().or_else(seal_keys::default_file);
    let is_shared = config.transactions.adopt == Adopt::Always;
    let Some(file) = file else {
        if is_shared {
            return findings.odd(
                "sip",
                "`adopt = \"always\"` in [transactions] without a key-file: the answers to other hosts' requests are not recognised; set `key-file`, and \
                 copy the file of another host",
            );
        }
        return findings.good(
            "sip",
            "no key-file: each start generates a new key, and responses, ACKs and dialogs from before a restart are not recognised after it",
        );
    };
    let shown = file.display();
    if !file.exists() && is_shared {
        return findings.odd(
            "sip",
            format!(
                "{shown} does not exist: the first start generates another key than that of the hosts with which this one shares its addresses \
                 (`adopt = \"always\"`); copy their file first, unless this is the first host"
            ),
        );
    }
    if !file.exists() {
        return findings.good("sip", format!("{shown} is created at the first start"));
    }
    match SealKeys::load(Some(&file)) {
        Err(error) => findings.wrong("sip", error.to_string()),
        Ok(_) if seal_keys::is_open(&file) => findings.odd(
            "sip",
            format!("{shown}: readable by every user of this machine: chmod 600"),
        ),
        Ok(_) => findings.good("sip", shown.to_string()),
    }
}

/// The host creates the file, but not its directory.
fn check_records(config: &Config, findings: &mut Findings) {
    let records = &config.records;
    for file in [&records.file, &records.calls].into_iter().flatten() {
        check_records_file(file, findings);
    }
}

fn check_records_file(file: &Path, findings: &mut Findings) {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match folder.is_dir() {
        true => {
            findings.good("records", file.display().to_string());
            let open = modes::too_open(file, modes::RECORDS);
            open.into_iter()
                .for_each(|text| findings.odd("records", text));
        }
        false => findings.wrong(
            "records",
            format!(
                "the directory {} does not exist: create it",
                folder.display()
            ),
        ),
    }
}

/// Asks the Redis through which hosts count together. A host starts without it.
fn check_exchange(config: &Config, findings: &mut Findings) -> anyhow::Result<()> {
    let Some(options) = exchange::options(&config.redis, "check") else {
        return Ok(());
    };
    let found = block_on(portcullis_fleet::exchange::probe(&options))?;
    match found {
        Err(trouble) => findings.skipped("fleet", trouble.to_string()),
        Ok(found) if found.ahead_ms.unsigned_abs() >= 2_000 => findings.odd(
            "fleet",
            format!(
                "Redis at {}: its clock is {} ms ahead of that of this machine: look at NTP on both",
                found.server, found.ahead_ms
            ),
        ),
        Ok(found) => findings.good("fleet", format!("Redis at {}", found.server)),
    }
    Ok(())
}

/// The control interfaces may be in use by the running host; what they need must exist.
fn check_control(config: &Config, findings: &mut Findings) {
    let control = &config.control;
    let problems = portcullis_control::check(control);
    if problems.is_empty() {
        let doors = Listening::wanted(control);
        match control.listen {
            Some(addr) if !addr.ip().is_loopback() && control.tls.is_none() => findings.odd(
                "control",
                format!("{doors}: the token goes over the network as plain text; set `certificate` and `key`, or put a proxy with TLS in front"),
            ),
            _ => findings.good("control", doors.to_string()),
        }
    }
    for problem in problems {
        findings.wrong("control", problem);
    }
}

/// The policy of a seat, or the error.
type Loaded = Result<PolicyFiles, PolicyFileError>;

/// The parts of the database that the policies use.
#[derive(Default)]
struct UsedTables {
    addresses: bool,
    trusted: bool,
}

fn check_policies(config: &Config, findings: &mut Findings) -> UsedTables {
    let mut used = UsedTables::default();
    let policy = &config.policy;
    if policy.seat.file.is_none() {
        findings.odd(
            "policy",
            "none is configured: `default` in [policy] decides on every request of no tenant",
        );
    }
    let runtime = match Runtime::new(policy.seat.limits.clone()) {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => {
            findings.wrong("policy", error.to_string());
            return used;
        }
    };
    // A file is no more trusted here than on a running host.
    runtime.compile_with(compiler::for_a_command());
    check_cache(compiler::share_code(&runtime, &policy.cache), findings);
    let operators = [
        ("policy", Some(&policy.seat)),
        ("policy.before", policy.before.as_ref()),
        ("policy.after", policy.after.as_ref()),
    ];
    let operators = operators
        .into_iter()
        .filter_map(|(what, seat)| Some((what.to_owned(), seat?)));
    let tenants = config.tenants.iter();
    let tenants = tenants.map(|tenant| (format!("tenants.{}", tenant.name), &*tenant.seat));
    let seats: Vec<_> = operators.chain(tenants).collect();
    for ((what, seat), loaded) in seats.iter().zip(load_all(&seats, &runtime)) {
        let files = loaded.and_then(|loaded| told(what, seat, loaded, findings));
        let served = files.and_then(|files| files.slot().current());
        let asks_for = |interface| {
            let inspection = served.as_ref().map(|one| one.policy.inspection());
            inspection.is_some_and(|inspection| inspection.asks_for(interface))
        };
        used.addresses |= asks_for("permissions");
        used.trusted |= asks_for("trusted");
    }
    used
}

/// Loads the policy of each seat with a file, on all cores.
fn load_all(seats: &[(String, &SeatConfig)], runtime: &Arc<Runtime>) -> Vec<Option<Loaded>> {
    let next = AtomicUsize::new(0);
    let loaded: Vec<_> = seats.iter().map(|_| OnceLock::new()).collect();
    let load = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((what, seat)) = seats.get(number) else {
                return;
            };
            if seat.file.is_some() {
                let files = PolicyFiles::alone(what, (*seat).clone(), Arc::clone(runtime));
                let done = files.load().map(|_| files);
                let _first = loaded[number].set(done);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(load);
        }
    });
    loaded.into_iter().map(OnceLock::into_inner).collect()
}

/// Code compiled here is kept for the host, if it has a cache.
fn check_cache(state: CodeCacheState, findings: &mut Findings) {
    const WHAT: &str = "policy.cache";
    match state {
        CodeCacheState::Nowhere => findings.good(WHAT, "none: each start compiles every policy"),
        CodeCacheState::NotYet(folder) => findings.good(
            WHAT,
            format!("{} is created at the first start", folder.display()),
        ),
        CodeCacheState::In { folder, bytes } => {
            findings.good(WHAT, format!("{}, {bytes} bytes", folder.display()));
        }
        CodeCacheState::Unusable(error) => findings.odd(
            WHAT,
            format!("not used, each start compiles every policy: {error}"),
        ),
    }
}

/// The policy, if it is usable.
fn told(
    what: &str,
    seat: &SeatConfig,
    loaded: Loaded,
    findings: &mut Findings,
) -> Option<PolicyFiles> {
    let file = seat.file.as_ref()?;
    let files = match loaded {
        Ok(files) => files,
        Err(error) => {
            findings.wrong(what, error.to_string());
            return None;
        }
    };
    let generation = files.slot().current()?;
    let policy = &generation.policy;
    findings.good(
        what,
        format!(
            "{}, sha256:{:#}, {}",
            file.display(),
            policy.digest(),
            state_of(policy)
        ),
    );
    if let Some(failure) = policy.trial_failure() {
        findings.odd(what, format!("it fails on a plain OPTIONS: {failure}"));
    }
    Some(files)
}

/// Names that do not resolve now may resolve later; until then calls to them fail.
async fn check_names(config: &Config, dns: &Dns, findings: &mut Findings) {
    let relay = &config.relay;
    let hops = relay
        .next_hop
        .iter()
        .chain(relay.next_hops.iter().map(|(_, hop)| hop));
    let mut lookups: Vec<Lookup> = hops
        .filter_map(|hop| match &hop.host {
            Host::Name(name) => Some(Lookup::of(name, hop.port, hop.transport)),
            Host::Addr(_) => None,
        })
        .chain(lookups_of(&relay.domains))
        .collect();
    for tenant in &config.tenants {
        lookups.extend(lookups_of(&tenant.domains));
    }
    lookups.sort_unstable();
    lookups.dedup();
    let found = join_all(lookups.iter().map(|lookup| dns.plan(lookup))).await;
    for (lookup, found) in lookups.iter().zip(found) {
        let name = &lookup.name;
        match found.error() {
            None => findings.good("relay", format!("{name} resolves")),
            Some(error) => findings.odd(
                "relay",
                format!("{name}: {error}; requests to it are answered 503 until it resolves"),
            ),
        }
    }
}

/// Where URIs with these names lead if they have neither port nor transport.
fn lookups_of(domains: &[Domain]) -> impl Iterator<Item = Lookup> {
    domains.iter().filter_map(|domain| match &domain.hosts {
        Hosts::Name(name) => Some(Lookup::of(name, None, None)),
        Hosts::Net(_) => None,
    })
}
