//! What many tenants cost, each with a policy of its own: the CPU time of a request when requests come to all of them in random order,
//! memory, descriptors and memory maps for each tenant, and the time that a start takes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use tempfile::TempDir;

use super::figures::median;
use super::load::{self, Report};
use super::machine::resident_bytes;
use super::own_code::with_a_function_of_its_own;
use super::pinned::{Process, free_port};
use super::plan::{Pace, STEADY};
use super::servers::Programs;

/// Time for a start, and for each tenant of it on a slow machine that has compiled none of their policies before.
const START: Duration = Duration::from_secs(60);
const START_EACH: Duration = Duration::from_millis(500);

/// Sandboxes of a host without a configured number, and the largest number that can be configured.
const SANDBOXES: u32 = 2_500;
const MOST_SANDBOXES: u32 = 10_000;

/// Time for one answer while the host starts.
const PROBE: Duration = Duration::from_millis(200);

/// What was measured of a host with so many tenants.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Crowded {
    /// Number of tenants.
    pub(crate) tenants: u32,
    /// Seconds from the start of the process until every tenant's own policy has answered, all cores in use, with files that the host
    /// has never seen.
    pub(crate) first_start_seconds: f64,
    /// The same when the host is started again, and finds the code in its cache.
    pub(crate) next_start_seconds: f64,
    /// [`STEADY`] requests a second in small bursts.
    pub(crate) steady: Cost,
    /// As many requests as the host answers.
    pub(crate) full: Cost,
    /// What each tenant adds to a host with one; none for that one.
    pub(crate) each: Option<Each>,
}

/// CPU time of a request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// Microseconds; the median of the rounds.
    pub(crate) cpu_us: f64,
    /// The same against a host with one tenant in the same round; the median of the rounds.
    pub(crate) against_one: f64,
}

/// What one more tenant takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Each {
    /// Memory of a tenant that was asked once, in bytes.
    pub(crate) idle_bytes: f64,
    /// Memory of a tenant that had its part of the load, in bytes.
    pub(crate) used_bytes: f64,
    /// File descriptors.
    pub(crate) descriptors: f64,
    /// Memory maps, of which the system allows a process a limited number.
    pub(crate) maps: f64,
}

/// What a host holds at some moment.
#[derive(Clone, Copy, Debug, Default)]
struct Holdings {
    idle_bytes: u64,
    used_bytes: u64,
    descriptors: u64,
    maps: u64,
}

/// What was measured of one host.
#[derive(Clone, Debug)]
struct Measured {
    tenants: u32,
    first_start: Duration,
    next_start: Duration,
    holdings: Holdings,
    /// CPU time of a request, one for each round.
    steady_us: Vec<f64>,
    full_us: Vec<f64>,
}

/// Measures a host for each number of tenants.
pub(crate) fn measure(programs: &Programs, pace: &Pace) -> Result<Vec<Crowded>> {
    let mut hosts = Vec::new();
    let mut all = Vec::new();
    for &tenants in &pace.tenants {
        let files = Files::write(tenants, programs)?;
        let first = Host::start(&files, programs)?.started_in;
        let host = Host::start(&files, programs)?;
        host.process.pin_to(pace.server_core)?;
        eprintln!(
            "{tenants} tenants: {:.1} s to the first start, {:.1} s to the next",
            first.as_secs_f64(),
            host.started_in.as_secs_f64()
        );
        let pid = host.process.pid();
        all.push(Measured {
            tenants,
            first_start: first,
            next_start: host.started_in,
            holdings: Holdings {
                idle_bytes: resident_bytes(pid),
                used_bytes: 0,
                ..Holdings::default()
            },
            steady_us: Vec::new(),
            full_us: Vec::new(),
        });
        hosts.push((host, files));
    }
    for round in 0..pace.rounds {
        for ((host, _), measured) in hosts.iter().zip(&mut all) {
            let cpu_us = |rate| -> Result<f64> {
                let report = host.load(measured.tenants, rate, programs, pace)?;
                Ok(report.window.server.cpu_us)
            };
            let (steady_us, full_us) = (cpu_us(Some(STEADY))?, cpu_us(None)?);
            eprintln!(
                "{}/{}  {} tenants, 401: {steady_us:.2} µs at {STEADY} a second, {full_us:.2} µs at full load",
                round + 1,
                pace.rounds,
                measured.tenants
            );
            measured.steady_us.push(steady_us);
            measured.full_us.push(full_us);
        }
    }
    for ((host, _), measured) in hosts.iter().zip(&mut all) {
        let pid = host.process.pid();
        measured.holdings.used_bytes = resident_bytes(pid);
        measured.holdings.descriptors = descriptors(pid)?;
        measured.holdings.maps = maps(pid)?;
    }
    Ok(rows(&all))
}

/// Sets each host beside the first one.
fn rows(all: &[Measured]) -> Vec<Crowded> {
    let Some(one) = all.first() else {
        return Vec::new();
    };
    let row = |measured: &Measured| Crowded {
        tenants: measured.tenants,
        first_start_seconds: measured.first_start.as_secs_f64(),
        next_start_seconds: measured.next_start.as_secs_f64(),
        steady: Cost::of(&measured.steady_us, &one.steady_us),
        full: Cost::of(&measured.full_us, &one.full_us),
        each: measured.each(one),
    };
    all.iter().map(row).collect()
}

impl Cost {
    /// Of the rounds of a host, beside those of the host with one tenant.
    fn of(rounds: &[f64], one: &[f64]) -> Self {
        let against_one = rounds.iter().zip(one).map(|(of, to)| of / to);
        Self {
            cpu_us: median(rounds.to_vec()),
            against_one: median(against_one.collect()),
        }
    }
}

impl Measured {
    fn each(&self, one: &Self) -> Option<Each> {
        let more = self.tenants.checked_sub(one.tenants)?;
        let of = |pick: fn(&Holdings) -> u64| {
            (pick(&self.holdings) as f64 - pick(&one.holdings) as f64) / f64::from(more)
        };
        (more > 0).then(|| Each {
            idle_bytes: of(|holdings| holdings.idle_bytes),
            used_bytes: of(|holdings| holdings.used_bytes),
            descriptors: of(|holdings| holdings.descriptors),
            maps: of(|holdings| holdings.maps),
        })
    }
}

/// Configuration and policies of a host with so many tenants.
struct Files {
    folder: TempDir,
    tenants: u32,
    address: SocketAddr,
}

impl Files {
    fn write(tenants: u32, programs: &Programs) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (address, control) = (local(free_port()?), local(free_port()?));
        let mut config = format!(
            "workers = 1\nlisten = [\"udp:{address}\"]\n[database]\naddress-file = \"rows\"\n\
             [control]\nlisten = \"{control}\"\ntoken-file = \"\"\n[log]\nlevel = \"warn\"\n\
             [sip]\nanswers-per-second = 1000000\nanswers-burst = 10000000\n\
             [policy]\ncache = \"compiled\"\ninstances = {}\n",
            tenants.clamp(SANDBOXES, MOST_SANDBOXES)
        );
        let policy = fs::read(&programs.policy)
            .with_context(|| format!("cannot read {}", programs.policy.display()))?;
        for tenant in 0..tenants {
            let name = name(tenant);
            config += &format!(
                "[tenants.{name}]\nuri-domains = [\"{}\"]\nfile = \"{name}.wasm\"\n",
                domain(tenant)
            );
            let file = folder.path().join(format!("{name}.wasm"));
            fs::write(file, with_a_function_of_its_own(&policy, tenant)?)?;
        }
        fs::write(
            folder.path().join("rows"),
            "200 192.168.1.0 24 5060 OfficeSubnet\n",
        )?;
        fs::write(folder.path().join("portcullis.toml"), config)?;
        Ok(Self {
            folder,
            tenants,
            address,
        })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A running host.
struct Host {
    process: Process,
    address: SocketAddr,
    started_in: Duration,
}

impl Host {
    /// Starts it on all cores, and waits until every tenant's policy has answered.
    fn start(files: &Files, programs: &Programs) -> Result<Self> {
        let mut command = Command::new(&programs.portcullis);
        command.current_dir(files.path()).arg("serve");
        let log = files.path().join("log");
        let begun = Instant::now();
        let mut process = Process::start("Portcullis", None::<usize>, &command, &log)?;
        let socket = UdpSocket::bind("127.1.0.1:0")?;
        socket.set_read_timeout(Some(PROBE))?;
        let mut tenant = 0;
        process.wait_until_within(START + START_EACH * files.tenants, || {
            while tenant < files.tenants && has_answered(&socket, files.address, tenant) {
                tenant += 1;
            }
            tenant == files.tenants
        })?;
        Ok(Self {
            process,
            address: files.address,
            started_in: begun.elapsed(),
        })
    }

    /// Puts the host under load: so many requests a second, or as many as it answers.
    fn load(
        &self,
        tenants: u32,
        rate: Option<u64>,
        programs: &Programs,
        pace: &Pace,
    ) -> Result<Report> {
        let mut command = Command::new(&programs.load);
        command
            .args(["run", "--mode", "reject", "--target"])
            .arg(self.address.to_string())
            .args(["--tenants", &tenants.to_string()])
            .args(["--sources", &pace.sources.to_string()])
            .args(["--outstanding", &pace.outstanding.to_string()])
            .args(["--patience", "2000"])
            .args(["--warm-up", &pace.warm_up_seconds.to_string()])
            .args(["--seconds", &pace.seconds.to_string()])
            .args(["--watch", &self.process.pid().to_string()]);
        if let Some(rate) = rate {
            command.args(["--rate", &rate.to_string()]);
        }
        load::report(&command, pace)
    }
}

/// Asks a tenant with an INVITE from a source that nobody knows: true for the 401 of the policy, not for what the host answers without it.
fn has_answered(socket: &UdpSocket, address: SocketAddr, tenant: u32) -> bool {
    let Ok(local) = socket.local_addr() else {
        return false;
    };
    let (name, domain) = (name(tenant), domain(tenant));
    let invite = format!(
        "INVITE sip:x@{domain} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{name};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:bench@127.1.0.1>;tag=1\r\nTo: <sip:x@{domain}>\r\n\
         Call-ID: {name}@127.1.0.1\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    );
    let call_id = format!("Call-ID: {name}@127.1.0.1\r\n");
    if socket.send_to(invite.as_bytes(), address).is_err() {
        return false;
    }
    let mut answer = [0; 2048];
    // One that came too late for the request before may stand in front of it.
    while let Ok(length) = socket.recv(&mut answer) {
        let answer = String::from_utf8_lossy(&answer[..length]);
        if answer.contains(&call_id) {
            return answer.starts_with("SIP/2.0 401 ");
        }
    }
    false
}

/// The names that the load generator gives to tenants.
fn name(tenant: u32) -> String {
    format!("t{tenant:05}")
}

fn domain(tenant: u32) -> String {
    format!("{}.tenants.example", name(tenant))
}

/// Memory maps of a process.
fn maps(pid: u32) -> Result<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok(maps.lines().count() as u64)
}

fn descriptors(pid: u32) -> Result<u64> {
    let all = fs::read_dir(format!("/proc/{pid}/fd"))?;
    Ok(all.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_set_beside_the_one_with_one_tenant() {
        let host = |tenants, idle_bytes, cpu_us: &[f64]| Measured {
            tenants,
            first_start: Duration::from_millis(1500),
            next_start: Duration::from_millis(500),
            holdings: Holdings {
                idle_bytes,
                used_bytes: 2 * idle_bytes,
                descriptors: 20 + u64::from(tenants) / 2,
                maps: 100 + 6 * u64::from(tenants),
            },
            steady_us: cpu_us.to_vec(),
            full_us: cpu_us.iter().map(|us| us / 2.0).collect(),
        };
        let rows = rows(&[
            host(1, 1_000_000, &[10.0, 20.0, 10.0]),
            host(101, 11_000_000, &[30.0, 24.0, 11.0]),
        ]);
        assert_eq!(rows[0].each, None);
        let cost = |cpu_us, against_one| Cost {
            cpu_us,
            against_one,
        };
        assert_eq!(rows[0].steady, cost(10.0, 1.0));
        assert_eq!(
            rows[1],
            Crowded {
                tenants: 101,
                first_start_seconds: 1.5,
                next_start_seconds: 0.5,
                steady: cost(24.0, 1.2),
                full: cost(12.0, 1.2),
                each: Some(Each {
                    idle_bytes: 100_000.0,
                    used_bytes: 200_000.0,
                    descriptors: 0.5,
                    maps: 6.0,
                }),
            }
        );
    }

    #[test]
    fn the_answer_of_the_policy_is_told_from_that_of_the_host() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let caller = UdpSocket::bind("127.0.0.1:0").unwrap();
        caller
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let answers = std::thread::spawn(move || {
            for (code, late) in [(503, false), (401, false), (401, true)] {
                let mut bytes = [0; 2048];
                let (length, from) = server.recv_from(&mut bytes).unwrap();
                let request = String::from_utf8_lossy(&bytes[..length]).into_owned();
                let call_id = request.lines().find(|line| line.starts_with("Call-ID"));
                let call_id = call_id.unwrap();
                if late {
                    server
                        .send_to(b"SIP/2.0 503 x\r\nCall-ID: t00001@127.1.0.1\r\n\r\n", from)
                        .unwrap();
                }
                let answer = format!("SIP/2.0 {code} x\r\n{call_id}\r\n\r\n");
                server.send_to(answer.as_bytes(), from).unwrap();
            }
        });
        let has_answered = [0, 1, 2].map(|tenant| has_answered(&caller, address, tenant));
        answers.join().unwrap();
        assert_eq!(has_answered, [false, true, true]);
    }
}
