//! The machine on which figures are measured.

use std::fs;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::process::capture;
use crate::workspace::root;

/// Properties of the machine on which the figures depend.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// Seconds since the Unix epoch.
    pub(crate) time: u64,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// Load average of the last minute before the benchmark. Near 0 on an idle machine.
    pub(crate) load_before: f64,
    /// The measured commit; "+" if files differ from it.
    pub(crate) commit: String,
}

impl Machine {
    /// Returns the properties of this machine.
    pub(crate) fn new() -> Self {
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name"));
        let cpu = cpu.map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
        let load = read("/proc/loadavg");
        let load = load.split(' ').next().and_then(|load| load.parse().ok());
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            time: since.map_or(0, |since| since.as_secs()),
            cpu: cpu.to_owned(),
            cores: thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: load.unwrap_or(f64::NAN),
            commit: commit().unwrap_or_else(|| "unknown".into()),
        }
    }

    /// Whether other programs were using the machine.
    pub(crate) fn is_busy(&self) -> bool {
        self.load_before > self.cores as f64 / 2.0
    }
}

fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let mut git = std::process::Command::new("git");
        capture(git.current_dir(root()).args(args)).ok()
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let mark = if changed.is_empty() { "" } else { "+" };
    Some(format!("{}{mark}", commit.trim()))
}

/// Returns the memory of a process in which shared pages count in proportion.
pub(crate) fn memory_bytes(pid: u32) -> u64 {
    account(pid, "Pss:")
}

/// Returns the memory of a process in which shared pages count fully: it does not change when another process starts.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    account(pid, "Rss:")
}

fn account(pid: u32, line: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = rollup.lines().find_map(|found| {
        let kib = found.strip_prefix(line)?.split_whitespace().next()?;
        kib.parse::<u64>().ok()
    });
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_pages_count_in_part_or_fully() {
        let own = std::process::id();
        let (part, full) = (memory_bytes(own), resident_bytes(own));
        assert!(0 < part && part <= full, "{part} of {full}");
        assert_eq!(resident_bytes(u32::MAX), 0);
    }
}
