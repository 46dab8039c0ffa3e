//! One request at a time, whose latency ends when its response reaches the socket, and not when this program has its core: other programs beside it
//! do not count as latency of the server.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};

use crate::answer::Reader;
use crate::histogram::{Histogram, Latency};
use crate::plan::{Mode, Plan};
use crate::template::Template;

/// A run of single requests over UDP.
#[derive(Clone, Debug)]
pub struct ProbePlan {
    /// The server.
    pub target: SocketAddr,
    /// The source, which the server does not know: each request is answered 401.
    pub source: IpAddr,
    /// Requests per second, at most: the next one waits for the response to this one.
    pub rate: u64,
    /// Requests before the measured window.
    pub warm_up: Duration,
    /// Length of the measured window.
    pub length: Duration,
    /// Time after which a request is lost.
    pub patience: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Requests of the measured window.
    pub sent: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Those that were not.
    pub lost: u64,
    /// From just before the request is sent until the system has received the response.
    pub latency: Latency,
}

/// Runs the plan to its end.
///
/// # Errors
/// If the socket cannot be used, or a response is not 401.
pub fn probe(plan: &ProbePlan) -> Result<ProbeReport> {
    ensure!(plan.rate > 0, "--rate must be at least 1");
    ensure!(
        plan.target.ip().is_loopback() && plan.source.is_loopback(),
        "{} to {}: this generator is made for 127.0.0.0/8 and ::1 only",
        plan.source,
        plan.target
    );
    let mut prober = Prober::new(plan)?;
    let (mut report, mut latencies) = (ProbeReport::default(), Histogram::new());
    let pause = Duration::from_secs(1) / u32::try_from(plan.rate).unwrap_or(u32::MAX);
    let begun = Instant::now();
    let mut due = begun;
    for number in 0.. {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let elapsed = begun.elapsed();
        if elapsed >= plan.warm_up + plan.length {
            break;
        }
        let latency = prober.ask(number)?;
        // What is late is not made up for: requests in a burst would wait for each other.
        due = (due + pause).max(Instant::now());
        if elapsed < plan.warm_up {
            continue;
        }
        report.sent += 1;
        match latency {
            Some(latency) => {
                report.answered += 1;
                latencies.record(latency.as_nanos() as u64);
            }
            None => report.lost += 1,
        }
    }
    ensure!(report.sent > 0, "no request was sent within the window");
    report.latency = latencies.latency();
    Ok(report)
}

struct Prober {
    socket: UdpSocket,
    target: SocketAddr,
    template: Template,
    reader: Reader,
    /// The first half of each id: no other process has it.
    process: u64,
}

impl Prober {
    fn new(plan: &ProbePlan) -> Result<Self> {
        let socket =
            UdpSocket::bind((plan.source, 0)).with_context(|| format!("source {}", plan.source))?;
        socket.set_read_timeout(Some(plan.patience))?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)
            .context("the system does not say when datagrams were received")?;
        let requests = Plan::new(plan.target, Mode::Reject, plan.source);
        Ok(Self {
            template: Template::new(&requests, socket.local_addr()?),
            socket,
            target: plan.target,
            reader: Reader::new(),
            process: u64::from(std::process::id()) << 32,
        })
    }

    /// Sends a request, and returns the time until its response was received; `None` if none came.
    fn ask(&mut self, number: u64) -> Result<Option<Duration>> {
        let id = self.process | number;
        let request = self.template.with_id(id);
        let sent = SystemTime::now();
        self.socket.send_to(request, self.target)?;
        loop {
            let Some((bytes, received)) = self.receive()? else {
                return Ok(None);
            };
            let Some(answer) = self.reader.read(&bytes) else {
                bail!("a datagram that is no response to this program");
            };
            // That of an earlier request came too late.
            if answer.id != id {
                continue;
            }
            ensure!(answer.code == 401, "{} in place of 401", answer.code);
            return Ok(Some(received.duration_since(sent).unwrap_or_default()));
        }
    }

    /// A datagram, and when the system received it.
    fn receive(&self) -> Result<Option<(Vec<u8>, SystemTime)>> {
        let mut bytes = vec![0; 65_536];
        let mut control = cmsg_space!(TimeSpec);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let fd = self.socket.as_raw_fd();
        let received = recvmsg::<()>(fd, &mut parts, Some(&mut control), MsgFlags::empty());
        let message = match received {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let time = message.cmsgs()?.find_map(|one| {
            let ControlMessageOwned::ScmTimestampns(time) = one else {
                return None;
            };
            Some(Duration::from(time))
        });
        let length = message.bytes;
        let time = time.context("a datagram without the time at which it was received")?;
        bytes.truncate(length);
        Ok(Some((bytes, UNIX_EPOCH + time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_those_of_the_server() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        let each = Duration::from_millis(2);
        thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok((count, from)) = server.recv_from(&mut buffer) {
                thread::sleep(each);
                let request = String::from_utf8_lossy(&buffer[..count]).into_owned();
                let (_, headers) = request.split_once("\r\n").unwrap();
                let answer = format!("SIP/2.0 401 Unauthorized\r\n{headers}");
                server.send_to(answer.as_bytes(), from).unwrap();
            }
        });
        let report = probe(&ProbePlan {
            target,
            source: "127.0.0.1".parse().unwrap(),
            rate: 1_000,
            // The first request counts, however slow this machine is.
            warm_up: Duration::ZERO,
            length: Duration::from_millis(100),
            patience: Duration::from_secs(10),
        });
        let report = report.unwrap();
        assert!(report.sent > 0 && report.lost == 0, "{report:?}");
        assert_eq!(report.answered, report.sent);
        assert!(report.latency.p50_us >= 2_000.0, "{report:?}");
    }
}
