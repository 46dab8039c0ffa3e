//! The load of the host.

use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use portcullis_fleet::directory::Load;

use crate::Control;

/// Measures the load between two readings.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// The time and the CPU time of the process, in microseconds, at the last reading.
    last: Option<(Instant, u64)>,
}

impl Meter {
    /// Reads the load since the last reading.
    pub(super) fn read(&mut self, control: &Control) -> Load {
        let counters = &control.shared.counters;
        let active = counters
            .iter()
            .map(|worker| worker.transactions.active.value());
        let last = control.history.last(1);
        Load {
            requests: last.last().map_or(0, |second| second.sum.requests),
            calls: active.sum(),
            busy_percent: self.busy(counters.len()),
        }
    }

    fn busy(&mut self, workers: usize) -> u64 {
        let now = Instant::now();
        let Some(cpu) = cpu_microseconds() else {
            return 0;
        };
        let Some((at, before)) = self.last.replace((now, cpu)) else {
            return 0;
        };
        let passed = now.saturating_duration_since(at).as_micros();
        let possible = passed * workers.max(1) as u128;
        let used = u128::from(cpu.saturating_sub(before));
        u64::try_from(used * 100 / possible.max(1)).unwrap_or(u64::MAX)
    }
}

fn cpu_microseconds() -> Option<u64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let time = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    u64::try_from(time).ok()
}
