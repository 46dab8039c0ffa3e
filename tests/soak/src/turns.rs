//! The turns of actors: their pauses, their counts, and the disruptions that they cause.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Ends the turns of all actors of a phase.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Ends the phase: no further turn begins.
    pub(crate) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Whether [`Stop::stop`] has been called.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns after this pause, or earlier with `false` if no further turn may begin.
    pub(crate) fn pause(&self, length: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let (stopped, _) = self
            .changed
            .wait_timeout_while(stopped, length, |stopped| !*stopped)
            .unwrap_or_else(PoisonError::into_inner);
        !*stopped
    }
}

/// Stops the phase when it is dropped, so that a panic of one thread does not leave the others running.
pub(crate) struct StopOnDrop<'s>(pub(crate) &'s Stop);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Disruptions during which control commands may be refused: a stopped database, missing descriptors, a full disk.
#[derive(Debug, Default)]
pub(crate) struct Disruptions {
    active: AtomicU64,
    begun: AtomicU64,
}

impl Disruptions {
    /// Begins a disruption, which ends when the guard is dropped.
    pub(crate) fn begin(&self) -> Disruption<'_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.active.fetch_add(1, Ordering::SeqCst);
        Disruption(self)
    }

    /// Runs a command. Returns its result, and whether there was no disruption meanwhile.
    pub(crate) fn during<T>(&self, command: impl FnOnce() -> T) -> (T, bool) {
        let before = self.begun.load(Ordering::SeqCst);
        let calm = self.active.load(Ordering::SeqCst) == 0;
        let result = command();
        (result, calm && self.begun.load(Ordering::SeqCst) == before)
    }
}

/// A disruption in progress.
pub(crate) struct Disruption<'d>(&'d Disruptions);

impl Drop for Disruption<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The counts of events, and the broken invariants.
#[derive(Debug, Default)]
pub(crate) struct Books {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    broken: Mutex<BTreeMap<String, u64>>,
}

impl Books {
    /// Counts one event.
    pub(crate) fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    /// Counts several events.
    pub(crate) fn add(&self, what: &'static str, number: u64) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what).or_default() += number;
    }

    /// Records a broken invariant. The first hundred kinds are kept, each with its count.
    pub(crate) fn broken(&self, what: String) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = broken.get_mut(&what) {
            *times += 1;
        } else if broken.len() < 100 {
            eprintln!("BROKEN: {what}");
            broken.insert(what, 1);
        }
    }

    /// All counts so far.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The invariants broken so far.
    pub(crate) fn all_broken(&self) -> Vec<String> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let told = broken.iter().map(|(what, times)| match times {
            1 => what.clone(),
            times => format!("{what} ({times} times)"),
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_beside_a_disruption_is_not_calm() {
        let disruptions = Disruptions::default();
        assert_eq!(disruptions.during(|| 1), (1, true));
        let (_, calm) = disruptions.during(|| drop(disruptions.begin()));
        assert!(!calm, "one that began and ended within the command counts");
        let on = disruptions.begin();
        assert!(!disruptions.during(|| ()).1);
        drop(on);
        assert!(disruptions.during(|| ()).1);
    }

    #[test]
    fn a_stop_ends_a_pause() {
        let stop = Stop::default();
        assert!(stop.pause(Duration::ZERO));
        std::thread::scope(|threads| {
            threads.spawn(|| assert!(!stop.pause(Duration::from_secs(3600))));
            stop.stop();
        });
        assert!(stop.is_stopped());
    }
}
