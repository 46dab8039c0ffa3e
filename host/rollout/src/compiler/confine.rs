//! The privileges that the compiler process drops before it reads the file: files, network, other programs and other processes.
//!
//! The compiler reads files from anybody with a token, so a vulnerability in it must not give access to anything. Landlock denies files,
//! network and signals; a seccomp filter denies every system call except those for computing, threads, standard input and output.
//! [`Confinement`] reports which of these the kernel supports.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::net::UdpSocket;
use std::process::Command;

/// The restrictions of the process, as it has observed them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// State of Landlock: `full`, `partial` or `none`.
    pub landlock: String,
    /// Whether the filter of system calls is active.
    pub seccomp: bool,
    /// Accesses that were attempted and not denied.
    pub possible: Vec<String>,
}

/// Name of an attempted access, and a function that returns whether it succeeded.
type Try = (&'static str, fn() -> bool);

impl Confinement {
    /// Whether every attempted access was denied.
    pub fn holds(&self) -> bool {
        self.possible.is_empty()
    }

    /// Attempts the accesses of a compromised process. Each must be denied.
    pub(super) fn try_out(mut self) -> Self {
        let tries: [Try; 4] = [
            ("reading files", || File::open("/proc/self/status").is_ok()),
            ("writing files", || File::create("/dev/null").is_ok()),
            ("the network", || UdpSocket::bind("127.0.0.1:0").is_ok()),
            ("other programs", || {
                Command::new("/proc/self/exe").spawn().is_ok()
            }),
        ];
        let possible = tries.iter().filter(|(_, is_possible)| is_possible());
        self.possible = possible.map(|(what, _)| (*what).to_owned()).collect();
        self
    }

    /// Formats the result on one line, for the parent process.
    pub(super) fn line(&self) -> String {
        let Self {
            landlock,
            seccomp,
            possible,
        } = self;
        format!("{landlock};{seccomp};{}", possible.join(","))
    }

    /// Reads [`Confinement::line`].
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut parts = line.trim().split(';');
        let (landlock, seccomp, possible) = (parts.next()?, parts.next()?, parts.next()?);
        let possible = possible.split(',').filter(|what| !what.is_empty());
        Some(Self {
            landlock: landlock.to_owned(),
            seccomp: seccomp.parse().ok()?,
            possible: possible.map(str::to_owned).collect(),
        })
    }
}

/// `landlock full, seccomp on`
impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seccomp = if self.seccomp { "on" } else { "off" };
        write!(f, "landlock {}, seccomp {seccomp}", self.landlock)?;
        match &self.possible[..] {
            [] => f.write_str("; files, network and other programs are out of its reach"),
            possible => write!(f, "; it can still reach {}", possible.join(", ")),
        }
    }
}

/// Drops all privileges that compiling does not need, also for threads that are created later.
#[cfg(target_os = "linux")]
pub(super) fn confine() -> Confinement {
    Confinement {
        landlock: linux::restrict().unwrap_or("none").to_owned(),
        seccomp: linux::filter().is_some(),
        possible: Vec::new(),
    }
}

/// Other systems are not supported.
#[cfg(not(target_os = "linux"))]
pub(super) fn confine() -> Confinement {
    Confinement {
        landlock: "none".to_owned(),
        ..Confinement::default()
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
    use nix::libc;
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule,
    };

    use super::BTreeMap;

    /// Newest version to request. Older kernels apply what they support.
    const NEWEST: ABI = ABI::V6;

    /// System calls for computing with threads, reading and writing open pipes, and exiting.
    const CALLS: [libc::c_long; 32] = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_membarrier,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_getrusage,
        libc::SYS_clock_gettime,
        libc::SYS_clock_getres,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];

    /// Denies files, network and signals to other processes. `None` if the kernel does not support Landlock.
    pub(super) fn restrict() -> Option<&'static str> {
        let ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))
            .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NEWEST)))
            .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
            .and_then(Ruleset::create);
        let status = ruleset.and_then(|ruleset| ruleset.restrict_self()).ok()?;
        match status.ruleset {
            RulesetStatus::FullyEnforced => Some("full"),
            RulesetStatus::PartiallyEnforced => Some("partial"),
            RulesetStatus::NotEnforced => None,
        }
    }

    /// Fails all other system calls with ENOSYS, so that libraries use their fallbacks.
    pub(super) fn filter() -> Option<()> {
        let arch = std::env::consts::ARCH.try_into().ok()?;
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            CALLS.iter().map(|&call| (call, Vec::new())).collect();
        // Permits threads, but no processes. A filter cannot inspect the flags of clone3; without clone3, libraries use clone.
        let threads = libc::CLONE_THREAD as u64;
        let is_thread = condition(0, SeccompCmpOp::MaskedEq(threads), threads)?;
        rules.insert(libc::SYS_clone, vec![is_thread]);
        // Permits names of threads.
        let is_name = condition(0, SeccompCmpOp::Eq, libc::PR_SET_NAME as u64)?;
        rules.insert(libc::SYS_prctl, vec![is_name]);
        // Permits abort(), which signals the own process.
        let is_own = condition(0, SeccompCmpOp::Eq, std::process::id().into())?;
        rules.insert(libc::SYS_tgkill, vec![is_own]);
        let none = SeccompAction::Errno(libc::ENOSYS as u32);
        let filter = SeccompFilter::new(rules, none, SeccompAction::Allow, arch).ok()?;
        let program: BpfProgram = filter.try_into().ok()?;
        seccompiler::apply_filter(&program).ok()
    }

    fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Option<SeccompRule> {
        let length = SeccompCmpArgLen::Dword;
        let condition = SeccompCondition::new(argument, length, operator, value).ok()?;
        SeccompRule::new(vec![condition]).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_its_line() {
        for possible in [&["the network", "reading files"][..], &[]] {
            let found = Confinement {
                landlock: "partial".into(),
                seccomp: false,
                possible: possible.iter().map(|&what| what.to_owned()).collect(),
            };
            assert_eq!(Confinement::parse(&found.line()), Some(found.clone()));
            assert_eq!(found.holds(), possible.is_empty());
        }
        assert_eq!(Confinement::parse("full"), None);
    }
}
