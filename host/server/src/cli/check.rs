//! `portcullis check`: everything that is wrong with configuration, database and policy, before a host is started.

use std::io::Write;
use std::net::{ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use portcullis_policy::Runtime;

use crate::config::{
    Config, ConfigError, DEFAULT_FILE, DEFAULTS, Host, Hosts, Problem, SeatConfig,
};
use crate::control::Listening;
use crate::policy_files::PolicyFiles;

use super::check_tables;
use super::findings::Finding;
use super::print::{clean, count};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print a configuration file with every key, its default and its meaning, and check nothing
    #[arg(long)]
    defaults: bool,
}

pub(super) fn run(args: &Args, named: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if args.defaults {
        out.write_all(DEFAULTS.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut findings = Findings::default();
    check(named, &mut findings)?;
    findings.write(&mut out)?;
    Ok(if findings.wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What was found, in the order of the checks.
#[derive(Default)]
struct Findings {
    lines: Vec<String>,
    wrong: u64,
}

impl Findings {
    fn good(&mut self, what: &str, text: impl AsRef<str>) {
        self.lines
            .push(format!("{what:<14} {}", clean(text.as_ref())));
    }

    fn odd(&mut self, what: &str, text: impl AsRef<str>) {
        self.lines
            .push(format!("{what:<14} warning: {}", clean(text.as_ref())));
    }

    fn wrong(&mut self, what: &str, text: impl AsRef<str>) {
        self.lines
            .push(format!("{what:<14} error: {}", clean(text.as_ref())));
        self.wrong += 1;
    }

    fn extend(&mut self, what: &str, findings: Vec<Finding>) {
        for finding in findings {
            match finding {
                Finding::Good(text) => self.good(what, text),
                Finding::Odd(text) => self.odd(what, text),
                Finding::Wrong(text) => self.wrong(what, text),
            }
        }
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        for line in &self.lines {
            writeln!(out, "{line}")?;
        }
        match self.wrong {
            0 => writeln!(out, "everything can be used"),
            n => writeln!(out, "{}", count(n, "problem")),
        }
    }
}

fn check(named: Option<&Path>, findings: &mut Findings) -> anyhow::Result<()> {
    let path = match named {
        None if !Path::new(DEFAULT_FILE).exists() => {
            findings.good(
                "configuration",
                format!("the defaults: there is no {DEFAULT_FILE} here"),
            );
            return check_rest(&Config::default(), &[], findings);
        }
        None => PathBuf::from(DEFAULT_FILE),
        Some(path) => path.to_owned(),
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
    check_rest(&config, &problems, findings)
}

/// Checks what the configuration names, where it could be read.
fn check_rest(
    config: &Config,
    problems: &[Problem],
    findings: &mut Findings,
) -> anyhow::Result<()> {
    // What is not TOML may be a part of anything.
    let is_sound = |key: &str| {
        let concerns = |problem: &Problem| problem.key.is_empty() || problem.key.starts_with(key);
        !problems.iter().any(concerns)
    };
    if is_sound("listen") {
        check_listen(config, findings);
    }
    if is_sound("database") {
        findings.extend("database", check_tables::addresses(config)?);
        findings.extend("trusted", check_tables::trusted(config)?);
    }
    if is_sound("permissions") {
        findings.extend("rules", check_tables::rules(config));
    }
    if is_sound("policy") && is_sound("tenants") {
        check_policies(config, findings);
    }
    if is_sound("tenants") && is_sound("database") {
        findings.extend("tenants", check_tables::tenants(config)?);
    }
    if is_sound("relay") {
        check_names(config, findings);
    }
    if is_sound("records") {
        check_records(config, findings);
    }
    if is_sound("control") {
        check_control(config, findings);
    }
    Ok(())
}

/// Ports may be taken by the host that runs already, but the addresses must be there.
fn check_listen(config: &Config, findings: &mut Findings) {
    for listen in &config.listen {
        match UdpSocket::bind((listen.addr.ip(), 0)) {
            Ok(_) => findings.good("listen", listen.to_string()),
            Err(error) => findings.wrong(
                "listen",
                format!("{listen}: {error}; this machine must have the address"),
            ),
        }
    }
}

/// The file is made by the host; its folder is not.
fn check_records(config: &Config, findings: &mut Findings) {
    let Some(file) = &config.records.file else {
        return;
    };
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match folder.is_dir() {
        true => findings.good("records", file.display().to_string()),
        false => findings.wrong(
            "records",
            format!("there is no folder {}: make it", folder.display()),
        ),
    }
}

/// The doors may be open already, by the host that runs; what they need must be there.
fn check_control(config: &Config, findings: &mut Findings) {
    let control = &config.control;
    let problems = crate::control::check(control);
    if problems.is_empty() {
        let doors = Listening::wanted(control);
        match control.listen {
            Some(addr) if !addr.ip().is_loopback() => findings.odd(
                "control",
                format!("{doors}: the token goes over the network as plain text; put a proxy with TLS in front"),
            ),
            _ => findings.good("control", doors.to_string()),
        }
    }
    for problem in problems {
        findings.wrong("control", problem);
    }
}

fn check_policies(config: &Config, findings: &mut Findings) {
    let policy = &config.policy;
    if policy.seat.file.is_none() {
        findings.odd(
            "policy",
            "none is configured: `default` in [policy] decides on every request that no tenant claims",
        );
    }
    let runtime = match Runtime::new(policy.seat.limits.clone()) {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => return findings.wrong("policy", error.to_string()),
    };
    check_policy("policy", &policy.seat, &runtime, findings);
    for (what, seat) in [
        ("policy.before", &policy.before),
        ("policy.after", &policy.after),
    ] {
        if let Some(seat) = seat {
            check_policy(what, seat, &runtime, findings);
        }
    }
    for tenant in &config.tenants {
        let what = format!("tenants.{}", tenant.name);
        check_policy(&what, &tenant.seat, &runtime, findings);
    }
}

fn check_policy(what: &str, seat: &SeatConfig, runtime: &Arc<Runtime>, findings: &mut Findings) {
    let Some(file) = &seat.file else {
        return;
    };
    let files = PolicyFiles::alone(what, seat.clone(), Arc::clone(runtime));
    if let Err(error) = files.load() {
        return findings.wrong(what, error.to_string());
    }
    let Some(generation) = files.slot().current() else {
        return;
    };
    let policy = &generation.policy;
    findings.good(
        what,
        format!("{}, sha256:{:#}", file.display(), policy.digest()),
    );
    if let Some(failure) = policy.trial_failure() {
        findings.odd(what, format!("it fails on a plain OPTIONS: {failure}"));
    }
}

/// Names that do not resolve now may do so later, and calls to them fail until then.
fn check_names(config: &Config, findings: &mut Findings) {
    let relay = &config.relay;
    let hops = relay
        .next_hop
        .iter()
        .chain(relay.next_hops.iter().map(|(_, hop)| hop));
    let mut names: Vec<&str> = hops
        .filter_map(|hop| match &hop.host {
            Host::Name(name) => Some(name.as_str()),
            Host::Addr(_) => None,
        })
        .chain(
            relay
                .domains
                .iter()
                .filter_map(|domain| match &domain.hosts {
                    Hosts::Name(name) => Some(name.as_str()),
                    Hosts::Net(_) => None,
                }),
        )
        .collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        match (name, 0).to_socket_addrs() {
            Ok(_) => findings.good("relay", format!("{name} resolves")),
            Err(error) => findings.odd(
                "relay",
                format!("{name}: {error}; requests to it are answered 503 until it resolves"),
            ),
        }
    }
}
