//! `portcullis doctor`: what this machine lacks, for authors and for a host.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit};
use portcullis_author::{Language, Toolchain};
use portcullis_config::{Config, Listen, Socket};
use portcullis_control::memory_maps::MemoryMaps;
use portcullis_policy::{Allocation, Runtime};
use portcullis_sip::Transport;
use serde::Serialize;

use crate::rights;

use super::check_tables;
use super::findings::Finding;
use super::print::{clean, stdout};

/// Below this soft limit of descriptors, connections are refused early.
const DESCRIPTORS: u64 = 4096;

/// The first Linux in which a thread may ask for a short time slice (EEVDF), and in which written pages are found quickly (PAGEMAP_SCAN).
const SLICES: (u32, u32) = (6, 12);
const PAGEMAP_SCAN: (u32, u32) = (6, 7);

/// 2024-01-01: a clock before it has not been set.
const EARLIEST: u64 = 1_704_067_200;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON: a list of objects with `check`, `status` (ok, none, warn or fail), `found` and, if there is something to do, `mend`
    #[arg(long)]
    json: bool,
}

/// One line.
#[derive(Debug, Serialize)]
struct Line {
    check: String,
    status: Status,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    /// A compiler that is not here, which only its own policies need.
    #[serde(rename = "none")]
    Absent,
    Warn,
    Fail,
}

impl Line {
    fn new(check: impl Into<String>, status: Status, found: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            status,
            found: found.into(),
            mend: None,
        }
    }

    fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}

pub(super) fn run(
    args: &Args,
    config: impl Fn() -> anyhow::Result<Config>,
) -> anyhow::Result<ExitCode> {
    let mut lines = Vec::new();
    let config = match config() {
        Ok(config) => config,
        Err(error) => {
            let line = Line::new("configuration", Status::Fail, format!("{error:#}"));
            lines.push(line.mend("`portcullis check` names every error"));
            Config::default()
        }
    };
    lines.extend(Language::ALL.map(language));
    lines.extend(listen(&config));
    lines.extend(database(&config));
    lines.push(descriptors());
    lines.extend(memory_maps(&config));
    lines.push(address_space(&config));
    lines.push(kernel());
    lines.push(user());
    lines.push(clock());

    let out = &mut stdout();
    match args.json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&lines)?)?,
        false => write(&lines, out)?,
    }
    let failed = lines.iter().any(|line| line.status == Status::Fail);
    Ok(match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn write(lines: &[Line], out: &mut impl Write) -> std::io::Result<()> {
    for line in lines {
        let status = match line.status {
            Status::Ok => "ok",
            Status::Absent => "none",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        writeln!(out, "{status:<5} {:<16} {}", line.check, clean(&line.found))?;
        if let Some(mend) = &line.mend {
            writeln!(out, "{:<22} -> {}", "", clean(mend))?;
        }
    }
    Ok(())
}

/// Whether policies in a language can be built here. A host needs no compiler, so a missing one is only a warning for Rust, the usual language.
fn language(language: Language) -> Line {
    match Toolchain::find(language, Path::new(".")) {
        Ok(found) => Line::new(language.to_string(), Status::Ok, found.describe()),
        Err(missing) => {
            let status = match language {
                Language::Rust => Status::Warn,
                Language::C
                | Language::Zig
                | Language::AssemblyScript
                | Language::Go
                | Language::JavaScript
                | Language::Python => Status::Absent,
            };
            let found = format!("not installed, for policies only: no {}", missing.what);
            Line::new(language.to_string(), status, found).mend(missing.install)
        }
    }
}

/// An address that this machine lacks is a failure; one in use may be the running host's.
fn listen(config: &Config) -> Vec<Line> {
    let check = |socket: &Socket| {
        let wanted = socket.to_string();
        let bound = match socket.transport {
            Transport::Udp => UdpSocket::bind(socket.addr).map(drop),
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                TcpListener::bind(socket.addr).map(drop)
            }
        };
        match bound {
            Ok(()) => Line::new("listen", Status::Ok, format!("{wanted} is free")),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                Line::new("listen", Status::Warn, format!("{wanted} is in use"))
                    .mend("unless a running portcullis uses it, stop the other program, or set another `listen`")
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Line::new("listen", Status::Fail, format!("{wanted}: {error}"))
                    .mend("use a port above 1023, or give the unit AmbientCapabilities=CAP_NET_BIND_SERVICE")
            }
            Err(error) => Line::new("listen", Status::Fail, format!("{wanted}: {error}"))
                .mend("set `listen` to an address of this machine (`ip address`)"),
        }
    };
    let check_all = |listen: &Listen| match Socket::of(listen) {
        Ok(sockets) => sockets.iter().map(check).collect::<Vec<_>>(),
        Err(error) => vec![
            Line::new("listen", Status::Fail, error.to_string())
                .mend("set `listen` to an address or an interface of this machine (`ip address`)"),
        ],
    };
    config.listen.iter().flat_map(check_all).collect()
}

/// Whether the tables can be read, as `portcullis check` reads them.
fn database(config: &Config) -> Vec<Line> {
    let findings = check_tables::addresses(config, true);
    let findings = match findings {
        Ok(findings) => findings,
        Err(error) => vec![Finding::Wrong(format!("{error:#}"))],
    };
    let line = |finding| {
        match finding {
        Finding::Good(text) => Line::new("database", Status::Ok, text),
        Finding::Odd(text) => Line::new("database", Status::Warn, text),
        Finding::Skipped(text) | Finding::Wrong(text) => Line::new("database", Status::Fail, text)
            .mend("`portcullis check` checks all tables; docs/database.md lists the rights that are needed"),
    }
    };
    findings.into_iter().map(line).collect()
}

fn descriptors() -> Line {
    const CHECK: &str = "open files";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        // The host raises the soft limit to the hard one.
        Ok((_, hard)) if hard >= DESCRIPTORS => {
            Line::new(CHECK, Status::Ok, format!("at most {hard}"))
        }
        Ok((_, hard)) => Line::new(CHECK, Status::Warn, format!("at most {hard}"))
            .mend("LimitNOFILE=65536 in the unit, or `ulimit -n`: each TCP connection takes one"),
        Err(error) => Line::new(CHECK, Status::Warn, error.to_string()),
    }
}

fn memory_maps(config: &Config) -> Option<Line> {
    const CHECK: &str = "vm.max_map_count";
    let maps = MemoryMaps::of(config.tenants.len(), config)?;
    Some(match maps.problem() {
        Some(problem) => Line::new(CHECK, Status::Warn, problem),
        None => Line::new(CHECK, Status::Ok, "enough for the tenants"),
    })
}

/// Whether sandboxes come from a pool.
fn address_space(config: &Config) -> Line {
    const CHECK: &str = "address space";
    match Runtime::new(config.policy.seat.limits.clone()) {
        Err(error) => Line::new(CHECK, Status::Fail, error.to_string()),
        Ok(runtime) => match runtime.allocation() {
            Allocation::Pooled => Line::new(CHECK, Status::Ok, "enough for a pool of sandboxes"),
            Allocation::OnDemand { reason } => Line::new(
                CHECK,
                Status::Warn,
                format!("no pool of sandboxes, each call costs more: {reason}"),
            )
            .mend("raise `ulimit -v` (LimitAS= in the unit), or lower `instances` in [policy]"),
        },
    }
}

fn kernel() -> Line {
    const CHECK: &str = "kernel";
    let Ok(release) = fs::read_to_string("/proc/sys/kernel/osrelease") else {
        return Line::new(CHECK, Status::Warn, "of unknown version");
    };
    let release = release.trim();
    match version(release) {
        Some(version) if version >= SLICES => Line::new(CHECK, Status::Ok, format!("Linux {release}")),
        Some(version) if version >= PAGEMAP_SCAN => Line::new(
            CHECK,
            Status::Ok,
            format!("Linux {release}; from 6.12 on, workers wait less for other threads"),
        ),
        Some(_) => Line::new(CHECK, Status::Warn, format!("Linux {release}"))
            .mend("6.12 or newer: workers wait less for other threads, and large policies are reset faster"),
        None => Line::new(CHECK, Status::Warn, format!("Linux {release}, of unknown version")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn user() -> Line {
    match rights::user() {
        rights::Finding::Good(text) => Line::new("user", Status::Ok, text),
        rights::Finding::Odd(text) => Line::new("user", Status::Warn, text),
    }
}

/// Policies route by the time of day, and certificates have dates.
fn clock() -> Line {
    const CHECK: &str = "clock";
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |now| now.as_secs());
    if seconds < EARLIEST {
        return Line::new(CHECK, Status::Fail, "it is not set").mend("timedatectl set-ntp true");
    }
    // What the services of time synchronisation leave behind.
    let marks = [
        "/run/systemd/timesync/synchronized",
        "/run/chrony",
        "/run/ntpd.sock",
    ];
    match marks.iter().any(|mark| fs::exists(mark).unwrap_or(false)) {
        true => Line::new(CHECK, Status::Ok, "set, and kept by a service"),
        false => Line::new(
            CHECK,
            Status::Ok,
            "set; no service that keeps it was found here",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_kernels_are_compared_as_numbers() {
        assert_eq!(version("6.12.9-amd64"), Some((6, 12)));
        assert!(version("6.9.0") < Some(SLICES));
        assert!(version("10.0") > Some(SLICES));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn a_line_with_a_mend_has_two_rows() {
        let mut out = Vec::new();
        let line = Line::new("kernel", Status::Warn, "Linux 4").mend("a newer one");
        write(&[line], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.starts_with("warn  kernel"), "{text}");
        assert!(text.contains("-> a newer one"), "{text}");
    }

    #[test]
    fn a_compiler_that_is_not_here_is_not_called_ok() {
        let mut out = Vec::new();
        let line = Line::new("Zig", Status::Absent, "not installed");
        write(&[line], &mut out).unwrap();
        assert_eq!(out, b"none  Zig              not installed\n");
        let json = serde_json::to_value(Status::Absent).unwrap();
        assert_eq!(json, "none");
    }
}
