//! What this host says of its seats to the others: what it has carried out, what it could not, and what candidates have done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portcullis_fleet::directory::{Refused, SeatState};
use portcullis_policy::{Durations, Generation, Lineup, Trial};
use tokio::sync::watch;

use crate::policy_files::PolicyFiles;

/// What this host has done with the stored states of seats.
#[derive(Debug)]
pub(super) struct Told {
    seats: Mutex<BTreeMap<String, Entry>>,
    /// Grows with each change.
    pub(super) changes: watch::Sender<u64>,
}

/// What was done with the stored state of a seat.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    /// The last revision that was carried out, or did not concern this host.
    pub(super) revision: u64,
    /// The last revision that could not be carried out, if it is later.
    refused: Option<Refused>,
    /// The trial of the candidate, and the counts when it began.
    trial: Option<Begun>,
}

/// A trial, with the counts when it began.
#[derive(Clone, Debug)]
struct Begun {
    active: u64,
    candidate: u64,
    trial: Trial,
    candidates: Counts,
    actives: Counts,
    compared: u64,
    differing: u64,
}

/// The counts of a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    calls: u64,
    failures: u64,
    time: Duration,
    durations: Durations,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            seats: Mutex::default(),
            changes: watch::channel(0).0,
        }
    }
}

impl Told {
    /// Notes that a revision has been carried out.
    pub(super) fn note_done(&self, seat: &str, revision: u64) {
        let mut seats = self.seats.lock();
        let entry = seats.entry(seat.to_owned()).or_default();
        entry.revision = entry.revision.max(revision);
        let done = entry.revision;
        entry.refused = entry
            .refused
            .take()
            .filter(|refused| refused.revision > done);
        drop(seats);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Notes that a revision cannot be carried out.
    pub(super) fn note_refused(&self, seat: &str, revision: u64, error: String) {
        let mut seats = self.seats.lock();
        let entry = seats.entry(seat.to_owned()).or_default();
        entry.refused = Some(Refused { revision, error });
        drop(seats);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Notes the trial of a seat, whose counts begin with it. A trial that goes on is left as it is.
    pub(super) fn note_trial(&self, files: &PolicyFiles) {
        let lineup = files.slot().lineup();
        let begun = lineup.and_then(|lineup| Begun::now(files, &lineup));
        let mut seats = self.seats.lock();
        let entry = seats.entry(files.seat().name.to_string()).or_default();
        let is_same = match (&entry.trial, &begun) {
            (Some(before), Some(begun)) => begun.is_same_as(before),
            (Some(_) | None, None) | (None, Some(_)) => false,
        };
        if !is_same {
            entry.trial = begun;
        }
    }

    /// Forgets a seat, whose state will be applied again.
    pub(super) fn forget(&self, seat: &str) {
        self.seats.lock().remove(seat);
    }

    /// The last revision of a seat that was carried out; 0 without one.
    pub(super) fn revision(&self, seat: &str) -> u64 {
        let seats = self.seats.lock();
        seats.get(seat).map_or(0, |entry| entry.revision)
    }

    pub(super) fn entries(&self) -> BTreeMap<String, Entry> {
        self.seats.lock().clone()
    }
}

impl Entry {
    pub(super) fn state(self, files: &PolicyFiles) -> SeatState {
        let lineup = files.slot().lineup();
        let lineup = lineup.as_deref();
        let said = SeatState {
            active: lineup.map(|lineup| lineup.active.number),
            digest: lineup.map_or_else(String::new, |lineup| {
                format!("{:#}", lineup.active.policy.digest())
            }),
            is_file: files.file().is_some(),
            revision: self.revision,
            refused: self.refused,
            ..SeatState::default()
        };
        let Some(lineup) = lineup else {
            return said;
        };
        let Some(candidate) = &lineup.candidate else {
            return said;
        };
        let said = SeatState {
            candidate: Some(candidate.generation.number),
            share: match candidate.trial {
                Trial::Shadow => None,
                Trial::Canary(share) => Some(share.hundredths()),
            },
            ..said
        };
        let Some((begun, now)) = self.trial.zip(Begun::now(files, lineup)) else {
            return said;
        };
        if !begun.is_same_as(&now) {
            // Its counts begin with the next revision.
            return said;
        }
        let candidates = now.candidates.since(&begun.candidates);
        let actives = now.actives.since(&begun.actives);
        let is_rolled_out = files.seat().is_rolled_out();
        let sent = |durations: &Durations| match is_rolled_out {
            true => durations.counts().clone(),
            false => BTreeMap::new(),
        };
        SeatState {
            calls: candidates.calls,
            failures: candidates.failures,
            time_us: candidates.microseconds(),
            durations: sent(&candidates.durations),
            compared: now.compared.saturating_sub(begun.compared),
            differing: now.differing.saturating_sub(begun.differing),
            active_calls: actives.calls,
            active_time_us: actives.microseconds(),
            active_durations: sent(&actives.durations),
            ..said
        }
    }
}

impl Begun {
    /// The trial of a seat with the counts of now; `None` without one.
    fn now(files: &PolicyFiles, lineup: &Lineup) -> Option<Self> {
        let candidate = lineup.candidate.as_ref()?;
        let (active, other) = (&lineup.active, &candidate.generation);
        let comparison = files.seat().comparison();
        let comparison = comparison.filter(|comparison| {
            comparison.active == active.number && comparison.candidate == other.number
        });
        Some(Self {
            active: active.number,
            candidate: other.number,
            trial: candidate.trial,
            candidates: Counts::of(other),
            actives: Counts::of(active),
            compared: comparison
                .as_ref()
                .map_or(0, |all| all.same() + all.different()),
            differing: comparison.as_ref().map_or(0, |all| all.different()),
        })
    }

    fn is_same_as(&self, other: &Self) -> bool {
        self.active == other.active
            && self.candidate == other.candidate
            && self.trial == other.trial
    }
}

impl Counts {
    fn of(generation: &Arc<Generation>) -> Self {
        let stats = &generation.stats;
        // The calls are read last: they are never fewer than the failures.
        let failures = stats.all_failures();
        let time = stats.time();
        Self {
            calls: stats.calls(),
            failures,
            time,
            durations: stats.durations(),
        }
    }

    /// What has come since. A generation that was loaded again counts from 0.
    fn since(self, before: &Self) -> Self {
        if self.calls < before.calls {
            return self;
        }
        Self {
            calls: self.calls - before.calls,
            failures: self.failures.saturating_sub(before.failures),
            time: self.time.saturating_sub(before.time),
            durations: self.durations.since(&before.durations),
        }
    }

    fn microseconds(&self) -> u64 {
        u64::try_from(self.time.as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(told: &Told) -> Option<u64> {
        let refused = told.entries()["acme"].refused.clone();
        refused.map(|refused| refused.revision)
    }

    #[test]
    fn what_was_refused_is_told_until_a_later_revision_is_carried_out() {
        let told = Told::default();
        let mut changes = told.changes.subscribe();
        told.note_done("acme", 3);
        told.note_refused("acme", 4, "no".into());
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!((told.revision("acme"), refused(&told)), (3, Some(4)));
        told.note_done("acme", 3);
        assert_eq!((told.revision("acme"), refused(&told)), (3, Some(4)));
        told.note_done("acme", 5);
        assert_eq!((told.revision("acme"), refused(&told)), (5, None));
        assert!(changes.has_changed().unwrap());
        told.forget("acme");
        assert_eq!(told.revision("acme"), 0);
    }

    #[test]
    fn counts_are_those_since_the_trial_began() {
        let counts = |calls, failures, millis| Counts {
            calls,
            failures,
            time: Duration::from_millis(millis),
            durations: Durations::default(),
        };
        assert_eq!(counts(10, 2, 5).since(&counts(4, 1, 2)), counts(6, 1, 3));
        // The generation was loaded again.
        assert_eq!(counts(3, 1, 1).since(&counts(4, 0, 2)), counts(3, 1, 1));
        assert_eq!(counts(1, 0, 5).microseconds(), 5_000);
    }
}
