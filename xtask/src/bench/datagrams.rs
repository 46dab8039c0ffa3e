//! CPU time of the worst datagram from an unknown source: large messages of every shape, compared with a plain one of the same size.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::figures::median;
use super::pinned::{Process, free_port};
use super::plan::Pace;
use super::servers::Programs;

/// Size of each datagram in bytes, close to the largest UDP datagram.
const SIZE: usize = 60_000;

/// Datagrams of one shape in one window.
const COUNT: usize = 400;

/// Datagrams between two requests whose responses are awaited, so that no datagram is lost because of a full socket.
const BATCH: usize = 2;

/// The cost of one shape.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shaped {
    /// What is large about it.
    pub(crate) shape: &'static str,
    /// CPU time of the host per datagram in microseconds; the median of the rounds.
    pub(crate) cpu_us: f64,
    /// Ratio to the plain one of the same round; the median of the rounds.
    pub(crate) against_plain: f64,
}

/// Measures every shape, the most expensive first.
pub(crate) fn measure(programs: &Programs, pace: &Pace) -> Result<Vec<Shaped>> {
    let host = Host::start(programs, pace)?;
    let shapes = shapes();
    let mut rounds: Vec<Vec<f64>> = vec![Vec::new(); shapes.len()];
    for _ in 0..pace.rounds {
        for (shape, costs) in shapes.iter().zip(&mut rounds) {
            costs.push(host.cost_us(&shape.1)?);
        }
    }
    let plain = rounds[0].clone();
    let mut told: Vec<Shaped> = shapes
        .iter()
        .zip(rounds)
        .map(|((shape, _), costs)| Shaped {
            shape,
            against_plain: median(costs.iter().zip(&plain).map(|(of, to)| of / to).collect()),
            cpu_us: median(costs),
        })
        .collect();
    told.sort_by(|a, b| b.cpu_us.total_cmp(&a.cpu_us));
    Ok(told)
}

struct Host {
    // Dropped in this order: the process ends before its files are removed.
    process: Process,
    caller: UdpSocket,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Host {
    /// Starts a host with tenants that are selected by the domains of request URI and From, exact ones and wildcards.
    fn start(programs: &Programs, pace: &Pace) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let address = local(free_port()?);
        let policy = programs.policy.display();
        let config = format!(
            "workers = 1\nlisten = [\"udp:{address}\"]\n[database]\naddress-file = \"rows\"\n[control]\nlisten = \"\"\n\
             [log]\nlevel = \"error\"\n[sip]\nanswers-per-second = 1000000\nanswers-burst = 10000000\n[policy]\nfile = \"{policy}\"\n\
             [tenants.uri]\nuri-domains = [\"uri.example\", \"*.uri.example\"]\n\
             [tenants.from]\nfrom-domains = [\"from.example\", \"*.from.example\"]\n"
        );
        fs::write(folder.path().join("rows"), "200 192.0.2.0 24\n")?;
        fs::write(folder.path().join("portcullis.toml"), config)?;
        let mut command = Command::new(&programs.portcullis);
        command.current_dir(folder.path()).arg("serve");
        let log = folder.path().join("log");
        let mut process = Process::start("Portcullis", pace.server_core, &command, &log)?;
        process.wait_for_sip(address)?;
        let caller = UdpSocket::bind((Ipv4Addr::new(127, 1, 0, 1), 0))?;
        caller.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self {
            process,
            caller,
            address,
            _folder: folder,
        })
    }

    /// Returns the CPU time per datagram, without that of the requests in between.
    fn cost_us(&self, datagram: &[u8]) -> Result<f64> {
        let window = |datagram: Option<&[u8]>| -> Result<f64> {
            self.send(datagram, COUNT / 10)?;
            let before = self.cpu_ns()?;
            self.send(datagram, COUNT)?;
            Ok(self.cpu_ns()?.saturating_sub(before) as f64 / 1000.0)
        };
        let with = window(Some(datagram))?;
        let without = window(None)?;
        Ok((with - without).max(0.0) / COUNT as f64)
    }

    fn send(&self, datagram: Option<&[u8]>, count: usize) -> Result<()> {
        let local = self.caller.local_addr()?;
        for batch in 0..count / BATCH {
            for _ in 0..BATCH {
                if let Some(datagram) = datagram {
                    self.caller.send_to(datagram, self.address)?;
                }
            }
            let call_id = format!("between-{batch}");
            let options = format!(
                "OPTIONS sip:{} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{call_id};rport\r\nMax-Forwards: 70\r\n\
                 From: <sip:bench@127.1.0.1>;tag=1\r\nTo: <sip:x@{}>\r\nCall-ID: {call_id}\r\nCSeq: 1 OPTIONS\r\n\
                 Content-Length: 0\r\n\r\n",
                self.address, self.address
            );
            self.caller.send_to(options.as_bytes(), self.address)?;
            let mut answer = vec![0; 65_535];
            loop {
                let length = self.caller.recv(&mut answer)?;
                let text = String::from_utf8_lossy(&answer[..length]);
                if text.contains(&format!("Call-ID: {call_id}\r\n")) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Returns the CPU time of all threads of the host, as accounted by the scheduler.
    fn cpu_ns(&self) -> Result<u64> {
        let mut sum = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.process.pid()))? {
            // A thread may end meanwhile, but not one that handles datagrams.
            let Ok(account) = fs::read_to_string(thread?.path().join("schedstat")) else {
                continue;
            };
            let run = account.split(' ').next().context("schedstat is empty")?;
            sum += run.parse::<u64>()?;
        }
        Ok(sum)
    }
}

/// Returns all shapes. The first is the plain one.
fn shapes() -> Vec<(&'static str, Vec<u8>)> {
    let labels = |name: &str| format!("{}{name}", "a.".repeat(3900));
    let params = |count: usize| ";a=b".repeat(count);
    let many = |line: &str, count: usize| vec![line.to_owned(); count];
    let uri = |uri: &str| Message {
        uri: uri.into(),
        ..Message::default()
    };
    let from = |from: String| Message {
        from,
        ..Message::default()
    };
    let with = |lines: Vec<String>| Message {
        lines,
        ..Message::default()
    };
    vec![
        ("plain: a large body", Message::default()),
        (
            "labels in the request URI",
            uri(&format!("sip:x@{}", labels("uri.example"))),
        ),
        (
            "labels in From",
            from(format!("<sip:x@{}>;tag=1", labels("from.example"))),
        ),
        (
            "parameters of the request URI",
            uri(&format!("sip:x@h{}", params(1900))),
        ),
        (
            "parameters of From",
            from(format!("<sip:x@h>;tag=1{}", params(1900))),
        ),
        (
            "quoted pairs in From",
            from(format!("\"{}\" <sip:x@h>;tag=1", "\\\"".repeat(3900))),
        ),
        (
            "commas in From",
            from(format!("<sip:x@h>;tag=1{}", ",<sip:y@h>".repeat(780))),
        ),
        (
            "another scheme",
            uri(&format!("urn:service:{}", "sos.".repeat(1900))),
        ),
        ("header lines", with(many("X: y", 245))),
        (
            "long header lines",
            with(many(&format!("X: {}", "y".repeat(200)), 240)),
        ),
        ("folded lines", with(many("X: a\r\n b\r\n c", 80))),
        (
            "Vias",
            with(many("Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1", 190)),
        ),
        (
            "Vias in one line",
            with(many(
                &format!("Via: SIP/2.0/UDP h{}", ", SIP/2.0/UDP h".repeat(540)),
                5,
            )),
        ),
        ("Routes", with(many("Route: <sip:192.0.2.1;lr>", 245))),
        (
            "Routes in one line",
            with(many(
                &format!("Route: <sip:a;lr>{}", ",<sip:a;lr>".repeat(740)),
                6,
            )),
        ),
        (
            "Contacts",
            with(many(
                &format!("Contact: <sip:a@h>{}", ",<sip:a@h>".repeat(800)),
                6,
            )),
        ),
        (
            "Require",
            with(many(&format!("Require: a{}", ",a".repeat(4000)), 6)),
        ),
        (
            "parameters of Via",
            with(many(&format!("Via: SIP/2.0/UDP h{}", params(1900)), 6)),
        ),
    ]
    .into_iter()
    .map(|(shape, message)| (shape, message.bytes()))
    .collect()
}

/// A request that is padded with its body.
struct Message {
    uri: String,
    from: String,
    lines: Vec<String>,
}

impl Default for Message {
    fn default() -> Self {
        Self {
            uri: "sip:x@h".into(),
            from: "<sip:x@from.example>;tag=1".into(),
            lines: Vec::new(),
        }
    }
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let Self { uri, from, lines } = self;
        let mut head = format!(
            "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.1.0.1:9;branch=z9hG4bKworst;rport\r\nMax-Forwards: 70\r\nFrom: {from}\r\n\
             To: <sip:x@h>\r\nCall-ID: worst\r\nCSeq: 1 INVITE\r\n"
        );
        for line in lines {
            head.push_str(line);
            head.push_str("\r\n");
        }
        let rest = SIZE.saturating_sub(head.len() + "Content-Length: 00000\r\n\r\n".len());
        head.push_str(&format!("Content-Length: {rest:05}\r\n\r\n"));
        head.push_str(&"b".repeat(rest));
        head.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shapes_are_of_one_size() {
        for (shape, bytes) in shapes() {
            assert_eq!(bytes.len(), SIZE, "{shape}");
        }
    }
}
