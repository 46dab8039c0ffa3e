//! The memory of the process, and how much it may have.

use std::fs;

/// Bytes of memory. Values that the system does not report are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// What the process may have: the limit of its control group, or the memory of the machine.
    pub(crate) total: u64,
    /// Resident memory.
    pub(crate) used: u64,
    /// The most that was ever resident.
    pub(crate) most: u64,
}

impl Memory {
    /// That of this process.
    pub(crate) fn of_process() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let machine = kibibytes(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        Self {
            total: group_limit(&read("/proc/self/cgroup"))
                .map_or(machine, |limit| limit.min(machine)),
            used: kibibytes(&status, "VmRSS").unwrap_or_default(),
            most: kibibytes(&status, "VmHWM").unwrap_or_default(),
        }
    }

    /// What the process could still get.
    pub(crate) const fn free(&self) -> u64 {
        self.total.saturating_sub(self.used)
    }
}

/// The limit of the control group (version 2); `None` without one.
fn group_limit(groups: &str) -> Option<u64> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let path = format!("/sys/fs/cgroup{}/memory.max", path.trim_end_matches('/'));
    // "max" means no limit.
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A number of a file such as `/proc/self/status`.
pub(crate) fn number(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

/// The same in kibibytes, as bytes.
pub(crate) fn kibibytes(text: &str, name: &str) -> Option<u64> {
    number(text, name)?.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_system_are_read() {
        let status = "Name:\tportcullis\nVmSize:\t   20480 kB\nVmRSS:\t 1024 kB\nThreads:\t7\n";
        assert_eq!(kibibytes(status, "VmRSS"), Some(1 << 20));
        assert_eq!(number(status, "Threads"), Some(7));
        assert_eq!(number(status, "Vm"), None);
        let memory = Memory::of_process();
        assert!(0 < memory.used && memory.used <= memory.most, "{memory:?}");
        assert!(memory.used + memory.free() <= memory.total, "{memory:?}");
    }
}
