//! Permits to compile.

use std::cell::Cell;
use std::fs;
use std::thread;

use parking_lot::{Condvar, Mutex};
use portcullis_dataplane::tenants::Seat;

/// Number of tenants' files that are compiled at the same time; further files wait, so that a load does not take all cores.
const FOR_TENANTS: usize = 2;

/// Number of additional files at the same time, for the operator only: the operator's files do not wait for those of tenants.
const FOR_OPERATOR: usize = 1;

/// Most files at the same time while a host starts, however many cores it has: each takes file descriptors from the reserve.
const MOST_AT_START: usize = 16;

/// On whose behalf a file is compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Behalf {
    /// The operator's: its own file, or a file that it deploys for a tenant.
    #[default]
    Operator,
    /// A tenant's.
    Tenant,
}

/// When a file is compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// While the host serves.
    #[default]
    Usual,
    /// At the start of a host, which may have served this policy before: a busy machine is no reason to refuse it, and all cores are used.
    Start,
}

/// The purpose of a compilation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CompilePurpose {
    pub(super) behalf: Behalf,
    pub(super) occasion: Occasion,
}

thread_local! {
    static WORK: Cell<CompilePurpose> = const {
        Cell::new(CompilePurpose {
            behalf: Behalf::Operator,
            occasion: Occasion::Usual,
        })
    };
}

/// Runs `what` on this thread. Files that it compiles are compiled on this behalf.
pub(crate) fn on_behalf_of<T>(behalf: Behalf, what: impl FnOnce() -> T) -> T {
    let now = CompilePurpose::current();
    CompilePurpose { behalf, ..now }.scope(what)
}

/// Runs `what` on this thread. Files that it compiles are compiled on this occasion.
pub(crate) fn on<T>(occasion: Occasion, what: impl FnOnce() -> T) -> T {
    let now = CompilePurpose::current();
    CompilePurpose { occasion, ..now }.scope(what)
}

impl CompilePurpose {
    /// Returns the purpose of compilations on this thread.
    pub(super) fn current() -> Self {
        WORK.get()
    }

    fn scope<T>(self, what: impl FnOnce() -> T) -> T {
        struct Restore(CompilePurpose);

        impl Drop for Restore {
            fn drop(&mut self) {
                WORK.set(self.0);
            }
        }

        let _before = Restore(WORK.replace(self));
        what()
    }
}

impl Behalf {
    /// Returns the behalf for a seat.
    pub(crate) fn of(seat: &Seat) -> Self {
        match seat.is_operators() {
            true => Self::Operator,
            false => Self::Tenant,
        }
    }

    /// Returns the priority of the compiler process (`nice`). Tenants' compilations yield to the operator's, and both yield to calls.
    pub(super) fn niceness(self) -> u8 {
        match self {
            Self::Operator => 10,
            Self::Tenant => 19,
        }
    }
}

/// The permits of a host.
pub(super) struct Turns {
    taken: Mutex<Taken>,
    free: Condvar,
    at_start: usize,
}

#[derive(Debug, Default)]
struct Taken {
    operator: usize,
    tenants: usize,
}

pub(super) struct Turn<'t> {
    turns: &'t Turns,
    behalf: Behalf,
}

impl Taken {
    fn has_room(&self, work: CompilePurpose, at_start: usize) -> bool {
        if work.occasion == Occasion::Start && self.operator + self.tenants < at_start {
            return true;
        }
        match work.behalf {
            Behalf::Operator => self.operator + self.tenants < FOR_TENANTS + FOR_OPERATOR,
            // Permits above the operator's own number.
            Behalf::Tenant => {
                self.tenants + self.operator.saturating_sub(FOR_OPERATOR) < FOR_TENANTS
            }
        }
    }

    fn of(&mut self, behalf: Behalf) -> &mut usize {
        match behalf {
            Behalf::Operator => &mut self.operator,
            Behalf::Tenant => &mut self.tenants,
        }
    }
}

impl Turns {
    /// Creates permits: `at_start` of them while the host starts, but never fewer than later.
    pub(super) fn new(at_start: usize) -> Self {
        Self {
            taken: Mutex::default(),
            free: Condvar::new(),
            at_start,
        }
    }

    /// Waits for a permit.
    pub(super) fn take(&self, work: CompilePurpose) -> Turn<'_> {
        let CompilePurpose { behalf, .. } = work;
        let mut taken = self.taken.lock();
        while !taken.has_room(work, self.at_start) {
            self.free.wait(&mut taken);
        }
        *taken.of(behalf) += 1;
        Turn {
            turns: self,
            behalf,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.turns.taken.lock().of(self.behalf) -= 1;
        // Not every waiting thread may use this permit.
        self.turns.free.notify_all();
    }
}

/// Returns the number of files to compile at the same time while a host starts: one per core, as far as memory permits with `each` bytes
/// per file.
pub(crate) fn at_start(each: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    fitting(cores, free_memory(), each)
}

fn fitting(cores: usize, memory: Option<u64>, each: usize) -> usize {
    let fit = memory.map_or(usize::MAX, |memory| {
        usize::try_from(memory / each.max(1) as u64).unwrap_or(usize::MAX)
    });
    let least = FOR_TENANTS + FOR_OPERATOR;
    cores.min(fit).clamp(least, MOST_AT_START)
}

/// Returns the free memory of the machine or of the control group of this process, whichever is less, in bytes; `None` if neither is known.
fn free_memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| available(&text));
    match (machine, left_in_group()) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

/// Parses `/proc/meminfo`.
fn available(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Returns what the limit of the control group (`MemoryMax=`) leaves.
fn left_in_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let number = |file: &str| {
        let text = fs::read_to_string(format!("/sys/fs/cgroup/{path}/{file}")).ok()?;
        // "max": no limit.
        text.trim().parse::<u64>().ok()
    };
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(behalf: Behalf) -> CompilePurpose {
        CompilePurpose {
            behalf,
            occasion: Occasion::Usual,
        }
    }

    #[test]
    fn a_start_has_more_permits_and_returns_them() {
        let turns = Turns::new(4);
        let free = |work| turns.taken.lock().has_room(work, 4);
        let start = CompilePurpose {
            behalf: Behalf::Tenant,
            occasion: Occasion::Start,
        };
        let taken: Vec<_> = (0..4).map(|_| turns.take(start)).collect();
        assert!(!free(start) && !free(usual(Behalf::Tenant)) && !free(usual(Behalf::Operator)));
        drop(taken);
        assert!(free(start) && free(usual(Behalf::Tenant)));
    }

    #[test]
    fn a_start_uses_the_cores_that_memory_permits() {
        const GIB: u64 = 1 << 30;
        for (cores, memory, turns) in [
            (1, None, 3),
            (8, None, 8),
            (8, Some(64 * GIB), 8),
            (8, Some(5 * GIB), 5),
            (8, Some(0), 3),
            (200, None, MOST_AT_START),
        ] {
            assert_eq!(fitting(cores, memory, GIB as usize), turns);
        }
        let text = "MemTotal:       16 kB\nMemFree: 1 kB\nMemAvailable:    12 kB\n";
        assert_eq!(available(text), Some(12 * 1024));
        assert_eq!(available("MemTotal: 16 kB"), None);
    }

    #[test]
    fn the_operator_has_a_permit_of_its_own() {
        let turns = Turns::new(0);
        let free = |behalf| turns.taken.lock().has_room(usual(behalf), 0);
        let tenants = [
            turns.take(usual(Behalf::Tenant)),
            turns.take(usual(Behalf::Tenant)),
        ];
        assert!(!free(Behalf::Tenant) && free(Behalf::Operator));
        let operator = turns.take(usual(Behalf::Operator));
        assert!(!free(Behalf::Tenant) && !free(Behalf::Operator));
        drop(tenants);
        let more = [
            turns.take(usual(Behalf::Operator)),
            turns.take(usual(Behalf::Operator)),
        ];
        assert!(!free(Behalf::Tenant) && !free(Behalf::Operator));
        drop(operator);
        assert!(free(Behalf::Tenant));
        drop(more);
        assert!(free(Behalf::Tenant) && free(Behalf::Operator));
    }

    #[test]
    fn behalf_and_occasion_apply_to_compilations_on_the_thread() {
        let of_tenant = || on_behalf_of(Behalf::Tenant, CompilePurpose::current);
        assert_eq!(of_tenant(), usual(Behalf::Tenant));
        let at_start = CompilePurpose {
            behalf: Behalf::Tenant,
            occasion: Occasion::Start,
        };
        assert_eq!(on(Occasion::Start, of_tenant), at_start);
        assert_eq!(CompilePurpose::current(), CompilePurpose::default());
        let panicked = std::panic::catch_unwind(|| on_behalf_of(Behalf::Tenant, || panic!()));
        assert!(panicked.is_err());
        assert_eq!(CompilePurpose::current(), CompilePurpose::default());
    }
}
