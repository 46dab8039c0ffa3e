//! CPU time and memory of a server's processes, read from /proc.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// The units per second of utime and stime (USER_HZ), whatever the kernel's own tick is.
const NS_PER_TICK: u64 = 10_000_000;

/// Processes under observation.
#[derive(Clone, Debug)]
pub struct Watched {
    roots: Vec<u32>,
    pids: BTreeSet<u32>,
}

/// CPU time that the processes have used until a moment.
#[derive(Clone, Debug, Default)]
pub struct Consumed {
    /// Nanoseconds of CPU time for each thread. Kept separately, because the kernel drops the count of a thread that ends.
    run_ns: BTreeMap<u32, u64>,
    user_ticks: u64,
    system_ticks: u64,
}

/// Usage of the processes during a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in microseconds for each request. The scheduler counts it in nanoseconds.
    pub cpu_us: f64,
    /// The part of it spent in user mode. The kernel distinguishes user and kernel mode by sampling, so the error is about 1 % over seconds.
    pub user_us: f64,
    /// The part of it spent in the kernel.
    pub system_us: f64,
    /// CPU time of the processes as a share of one core.
    pub cores: f64,
    /// Memory at the end of the window; pages that the processes share are counted once.
    pub memory_bytes: u64,
}

impl Watched {
    /// These processes and all their descendants at this moment.
    ///
    /// # Errors
    /// If one of them does not exist.
    pub fn new(roots: &[u32]) -> Result<Self> {
        let mut pids: BTreeSet<u32> = roots.iter().copied().collect();
        for pid in &pids {
            let exists = Path::new(&format!("/proc/{pid}")).exists();
            ensure!(exists, "there is no process {pid} to watch");
        }
        let parents = parents()?;
        loop {
            let known = pids.len();
            let children = parents.iter().filter(|(_, parent)| pids.contains(parent));
            let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
            pids.extend(children);
            if pids.len() == known {
                let roots = roots.to_vec();
                return Ok(Self { roots, pids });
            }
        }
    }

    /// Usage so far.
    ///
    /// # Errors
    /// If one of the named processes has ended. Descendants may start and end.
    pub fn consumed(&self) -> Result<Consumed> {
        let mut sum = Consumed::default();
        for pid in &self.pids {
            let added = sum.add(*pid);
            if self.roots.contains(pid) {
                added.with_context(|| format!("process {pid} has ended"))?;
            }
        }
        Ok(sum)
    }

    /// Memory in bytes: the proportional set sizes, which for a single process is its resident set.
    pub fn memory_bytes(&self) -> u64 {
        self.pids.iter().map(|pid| memory_bytes(*pid)).sum()
    }
}

impl Consumed {
    /// Usage from `earlier` to `self`, divided by `requests`.
    pub fn usage(&self, earlier: &Self, requests: u64, seconds: f64, memory_bytes: u64) -> Usage {
        let run_ns = self.run_ns_since(earlier) as f64;
        let user = self.user_ticks.saturating_sub(earlier.user_ticks) as f64;
        let system = self.system_ticks.saturating_sub(earlier.system_ticks) as f64;
        let user_share = user / (user + system).max(1.0);
        let cpu_us = run_ns / 1000.0 / requests.max(1) as f64;
        Usage {
            cpu_us,
            user_us: cpu_us * user_share,
            system_us: cpu_us * (1.0 - user_share),
            cores: run_ns / 1e9 / seconds,
            memory_bytes,
        }
    }

    fn run_ns_since(&self, earlier: &Self) -> u64 {
        let of_thread = |(id, ns): (&u32, &u64)| {
            ns.saturating_sub(earlier.run_ns.get(id).copied().unwrap_or(0))
        };
        self.run_ns.iter().map(of_thread).sum()
    }

    fn add(&mut self, pid: u32) -> Result<()> {
        let user_ticks = stat_field(pid, 14).context("no utime")?;
        let system_ticks = stat_field(pid, 15).context("no stime")?;
        self.user_ticks += user_ticks;
        self.system_ticks += system_ticks;
        let mut seen = false;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?;
            let id = task.file_name().to_str().and_then(|id| id.parse().ok());
            let schedstat = fs::read_to_string(task.path().join("schedstat")).ok();
            let ns = schedstat.and_then(|text| text.split(' ').next()?.parse().ok());
            if let (Some(id), Some(ns)) = (id, ns) {
                self.run_ns.insert(id, ns);
                seen = true;
            }
        }
        if !seen {
            // A kernel without scheduler statistics: ticks are all there is.
            let ns = (user_ticks + system_ticks) * NS_PER_TICK;
            self.run_ns.insert(pid, ns);
        }
        Ok(())
    }
}

/// Every process with its parent.
fn parents() -> Result<Vec<(u32, u32)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").context("this measurement needs Linux' /proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        // A process that ended meanwhile is nobody's descendant.
        if let Some(parent) = stat_field(pid, 4) {
            all.push((pid, parent as u32));
        }
    }
    Ok(all)
}

/// A field of /proc/PID/stat by its number in proc(5).
fn stat_field(pid: u32, number: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command's name in parentheses, which may itself hold blanks and parentheses.
    let behind_name = &stat[stat.rfind(')')? + 2..];
    behind_name.split(' ').nth(number - 3)?.trim().parse().ok()
}

fn memory_bytes(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_done_shows() {
        let watched = Watched::new(&[std::process::id()]).unwrap();
        let before = watched.consumed().unwrap();
        let mut sum = 0u64;
        while watched.consumed().unwrap().run_ns_since(&before) < 20_000_000 {
            sum = (0..10_000).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n));
        }
        let usage = watched
            .consumed()
            .unwrap()
            .usage(&before, 1000, 1.0, watched.memory_bytes());
        assert!(usage.cpu_us >= 20.0, "{usage:?} {sum}");
        assert!((usage.user_us + usage.system_us - usage.cpu_us).abs() < 1e-9);
        assert!(usage.memory_bytes > 100_000);
    }

    #[test]
    fn children_are_watched_too() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let watched = Watched::new(&[std::process::id()]).unwrap();
        assert!(watched.pids.contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        // Linux gives no process this id.
        let refusal = Watched::new(&[u32::MAX]).unwrap_err().to_string();
        assert!(refusal.contains("no process 4294967295"), "{refusal}");
    }
}
