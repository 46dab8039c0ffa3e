//! The host's process, observed through /proc: its resources, and limits that are changed while it runs.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use portcullis_testkit::wait;
use serde::Serialize;

use crate::turns::{Books, Stop};

/// The resources of a process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Held {
    /// Resident memory, MiB.
    pub(crate) memory_mib: u64,
    /// Open descriptors.
    pub(crate) files: usize,
    /// Mappings of memory.
    pub(crate) maps: usize,
    /// Threads.
    pub(crate) threads: usize,
}

impl Held {
    /// Reads the values from /proc.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            number.with_context(|| format!("/proc/{pid}/status has no {name}"))
        };
        Ok(Self {
            memory_mib: field("VmRSS:")? / 1024,
            files: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            maps: fs::read_to_string(format!("/proc/{pid}/maps"))?
                .lines()
                .count(),
            threads: field("Threads:")? as usize,
        })
    }

    /// The larger value of each field.
    #[must_use]
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            memory_mib: self.memory_mib.max(other.memory_mib),
            files: self.files.max(other.files),
            maps: self.maps.max(other.maps),
            threads: self.threads.max(other.threads),
        }
    }

    /// The sum of each field.
    #[must_use]
    pub(crate) fn and(self, more: Self) -> Self {
        Self {
            memory_mib: self.memory_mib + more.memory_mib,
            files: self.files + more.files,
            maps: self.maps + more.maps,
            threads: self.threads + more.threads,
        }
    }

    /// A description of the values above those of `bound`.
    pub(crate) fn beyond(&self, bound: &Self) -> Vec<String> {
        let each = [
            ("MiB", self.memory_mib, bound.memory_mib),
            ("descriptors", self.files as u64, bound.files as u64),
            ("mappings", self.maps as u64, bound.maps as u64),
            ("threads", self.threads as u64, bound.threads as u64),
        ];
        each.into_iter()
            .filter(|(_, is, most)| is > most)
            .map(|(what, is, most)| format!("{is} {what}; {most} were expected at most"))
            .collect()
    }
}

/// The resources of a process at several moments, as a table for a report.
pub(crate) fn table(moments: &[(&str, Held)]) -> String {
    let mut text =
        "\n  the host holds                  MiB  descriptors  mappings  threads\n".to_owned();
    for (name, held) in moments {
        let _infallible = writeln!(
            text,
            "  {name:<28}{:>7}{:>13}{:>10}{:>9}",
            held.memory_mib, held.files, held.maps, held.threads
        );
    }
    text
}

/// The resources of a host after the connections of a phase have been closed, which takes moments.
pub(crate) fn settled(pid: u32) -> Result<Held> {
    let mut last = Held::of(pid)?;
    let mut same = 0;
    wait::until("the host has closed what its clients closed", || {
        let now = Held::of(pid).ok()?;
        same = if now.files >= last.files { same + 1 } else { 0 };
        last = now;
        (same > 200).then_some(now)
    });
    Ok(last)
}

/// Reads the resources of a host every second. Returns the largest ones.
pub(crate) fn sample(pid: u32, books: &Books, stop: &Stop) -> Held {
    let mut most = Held::default();
    while stop.pause(Duration::from_secs(1)) {
        match Held::of(pid) {
            Ok(held) => most = most.max(held),
            Err(error) => books.broken(format!("the host has ended: {error:#}")),
        }
    }
    most
}

/// The number of memory maps that the system allows a process.
pub(crate) fn map_limit() -> Result<u64> {
    let text = fs::read_to_string("/proc/sys/vm/max_map_count")?;
    text.trim()
        .parse()
        .context("/proc/sys/vm/max_map_count is no number")
}

/// The limit of open descriptors of a running process: soft and hard.
pub(crate) fn descriptor_limit(pid: u32) -> Result<(u64, u64)> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let mut numbers = line
        .context("/proc/PID/limits has no open files")?
        .split_whitespace()
        .filter_map(|word| word.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(soft), Some(hard)) => Ok((soft, hard)),
        _ => bail!("the limit of open files is no number"),
    }
}

/// Sets the soft limit of open descriptors of a running process.
pub(crate) fn set_descriptor_limit(pid: u32, soft: u64, hard: u64) -> Result<()> {
    let status = Command::new("prlimit")
        .arg(format!("--pid={pid}"))
        .arg(format!("--nofile={soft}:{hard}"))
        .status()
        .context("prlimit (package util-linux) cannot be run")?;
    ensure!(status.success(), "prlimit --nofile={soft}:{hard}: {status}");
    Ok(())
}

/// Number of datagrams that were dropped because the sockets of a host on this address were full.
pub(crate) fn dropped_by_kernel(sip: SocketAddr) -> Result<u64> {
    match sip.ip() {
        IpAddr::V4(ip) => kernel_drops(ip, sip.port()),
        IpAddr::V6(_) => kernel_drops(Ipv4Addr::LOCALHOST, sip.port()),
    }
}

/// Number of datagrams that the kernel dropped because the buffer of a socket on this address was full.
fn kernel_drops(ip: Ipv4Addr, port: u16) -> Result<u64> {
    let local = format!("{:08X}:{port:04X}", u32::from_le_bytes(ip.octets()));
    let table = fs::read_to_string("/proc/net/udp")?;
    let drops = table
        .lines()
        .filter(|line| line.split_whitespace().nth(1) == Some(&local))
        .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok());
    Ok(drops.sum())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_process_is_read() {
        let pid = std::process::id();
        let held = Held::of(pid).unwrap();
        assert!(held.files >= 3 && held.maps > 5 && held.threads >= 1 && held.memory_mib >= 1);
        let (soft, hard) = descriptor_limit(pid).unwrap();
        assert!(soft > 0 && soft <= hard);
        assert!(map_limit().unwrap() > 0);
    }

    #[test]
    fn what_is_beyond_a_bound_is_named() {
        let held = |memory_mib, files| Held {
            memory_mib,
            files,
            ..Held::default()
        };
        let bound = held(10, 4).and(held(0, 1));
        assert_eq!(held(10, 5).beyond(&bound), Vec::<String>::new());
        assert_eq!(
            held(11, 6).beyond(&bound),
            [
                "11 MiB; 10 were expected at most",
                "6 descriptors; 5 were expected at most"
            ]
        );
    }

    #[test]
    fn datagrams_that_find_no_room_are_counted() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(kernel_drops(Ipv4Addr::LOCALHOST, port).unwrap(), 0);
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for _ in 0..20_000 {
            sender.send_to(&[0; 1000], ("127.0.0.1", port)).unwrap();
        }
        assert!(kernel_drops(Ipv4Addr::LOCALHOST, port).unwrap() > 0);
    }
}
