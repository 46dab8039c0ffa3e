//! Starts, shows and moves roll-outs over all hosts of the database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_fleet::directory::HostRow;
use portcullis_store::{OPEN, Seat as StoredSeat, StoredRollout};

use crate::policy_files::PolicyFiles;
use crate::staged::{
    HostSeen, Next, Observed, Plan, Reference, Rollout, RolloutState, Tally, Wait,
};

use super::database::{Database, trial_of};
use super::rollout_error::RolloutError;
use super::state::Change;
use super::{Deployments, must_be_pushed};

/// Author of the changes that the host makes, as it is stored.
pub(crate) const BY_ROLLOUT: &str = "rollout";

/// How long a host leads a roll-out after its last look.
const LEASE: Duration = Duration::from_secs(5);

/// A leader extends its lease when less than this is left.
const EXTENDED: Duration = Duration::from_secs(3);

/// Most attempts to change a roll-out that others change at the same time.
const TRIES: usize = 5;

/// A roll-out, with what the database says of it beside the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutStatus {
    /// The roll-out.
    pub rollout: Rollout,
    /// The sum of what the hosts say of the current step.
    pub tally: Tally,
    /// What it waits for, or which gate fails; empty if it is over.
    pub waits: String,
    /// How long the current step has lasted, or did until the end.
    pub elapsed: Duration,
    /// Number of hosts that have the step, of those that are alive.
    pub hosts: (usize, usize),
    /// The host that moves it.
    pub leader: Option<String>,
    /// The author of the last change.
    pub changed_by: String,
    /// When it was changed last, in milliseconds since 1970 by the clock of the database.
    pub changed_at: i64,
}

/// A move of a roll-out that a host has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The seat.
    pub seat: String,
    /// The generation.
    pub generation: u64,
    /// What was done: `step 2 of 4: 10%`, `rolled back: …`.
    pub what: String,
}

/// A roll-out as it was read.
struct Read {
    stored: StoredRollout,
    rollout: Rollout,
}

/// What was read for a look at a roll-out.
struct Look {
    seat: StoredSeat,
    elapsed: Duration,
    hosts: Vec<HostSeen>,
}

impl Deployments {
    /// Begins to roll a generation out: its first step begins on all hosts.
    ///
    /// # Errors
    /// If the seat has no active generation, another trial or roll-out goes on, no host announces itself, or it cannot be stored.
    pub async fn start_rollout(
        &self,
        seat: &str,
        generation: u64,
        plan: Plan,
        by: &str,
    ) -> Result<RolloutStatus, RolloutError> {
        let (files, database) = self.of_rollout(seat)?;
        for _ in 0..TRIES {
            let before = self.stored_rollout(database, seat).await?;
            if OPEN.contains(&before.state.as_str()) {
                let (seat, generation) = (seat.to_owned(), before.generation);
                return Err(RolloutError::Goes { seat, generation });
            }
            let row = database.store().seat(seat).await?;
            let row = row.unwrap_or_default();
            let Some(base) = row.active else {
                return Err(RolloutError::Nothing(seat.to_owned()));
            };
            if base == generation {
                let seat = seat.to_owned();
                return Err(RolloutError::Active { seat, generation });
            }
            if let Some((candidate, _)) = row.candidate.filter(|(other, _)| *other != generation) {
                let seat = seat.to_owned();
                return Err(RolloutError::OnTrial { seat, candidate });
            }
            if !self.hosts(database).await?.iter().any(HostRow::is_alive) {
                return Err(RolloutError::NoHosts);
            }
            let rollout = Rollout {
                seat: seat.to_owned(),
                generation,
                base,
                plan: plan.clone(),
                step: 0,
                state: RolloutState::Running,
                why: String::new(),
                reference: Reference::default(),
            };
            let change = Change::TryOut(generation, rollout.trial());
            let after = stored(&rollout, &before);
            if database
                .move_rollout(
                    &files,
                    Some(change),
                    (&before, &after),
                    by,
                    Some(row.revision),
                )
                .await?
            {
                tracing::info!(
                    event = "rollout_started",
                    seat,
                    generation,
                    by,
                    step = %rollout.step_text(),
                    "roll-out started"
                );
                return self.rollout(seat).await;
            }
        }
        Err(RolloutError::Busy(seat.to_owned()))
    }

    /// Holds a roll-out at its step. Its gates still roll it back.
    ///
    /// # Errors
    /// If it does not run, or cannot be stored.
    pub async fn pause_rollout(&self, seat: &str, by: &str) -> Result<RolloutStatus, RolloutError> {
        let to = (RolloutState::Paused, "paused");
        self.set_rollout(seat, &[RolloutState::Running], to, by)
            .await
    }

    /// Has a paused roll-out go on.
    ///
    /// # Errors
    /// If it is not paused, or cannot be stored.
    pub async fn resume_rollout(
        &self,
        seat: &str,
        by: &str,
    ) -> Result<RolloutStatus, RolloutError> {
        let to = (RolloutState::Running, "resumed");
        self.set_rollout(seat, &[RolloutState::Paused], to, by)
            .await
    }

    /// Ends a roll-out and its trial: the generation before decides on all dialogs. Of one that was rolled back, it ends the alert.
    ///
    /// # Errors
    /// If it is over, or cannot be stored.
    pub async fn abort_rollout(&self, seat: &str, by: &str) -> Result<RolloutStatus, RolloutError> {
        let from = [
            RolloutState::Running,
            RolloutState::Paused,
            RolloutState::RolledBack,
        ];
        self.set_rollout(seat, &from, (RolloutState::Aborted, "aborted"), by)
            .await
    }

    /// Returns the last roll-out of a seat.
    ///
    /// # Errors
    /// If there is none, or the database does not answer.
    pub async fn rollout(&self, seat: &str) -> Result<RolloutStatus, RolloutError> {
        let (_, database) = self.of_rollout(seat)?;
        let stored = self.stored_rollout(database, seat).await?;
        if stored.revision == 0 {
            return Err(RolloutError::Unknown(seat.to_owned()));
        }
        let hosts = self.hosts(database).await?;
        self.status_of(database, read(stored)?, &hosts).await
    }

    /// Returns the last roll-out of each seat of this host, by seat.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn rollouts(&self) -> Result<Vec<RolloutStatus>, RolloutError> {
        let database = self.database.as_ref().ok_or(RolloutError::NoDatabase)?;
        let stored = database.store().rollouts(None).await?;
        let hosts = self.hosts(database).await?;
        let mut all = Vec::new();
        for stored in stored {
            if self.seats.files(&stored.seat).is_some() {
                all.push(self.status_of(database, read(stored)?, &hosts).await?);
            }
        }
        Ok(all)
    }

    /// Looks at all roll-outs that are not over, and moves those that this host leads. `leader` is unique for each process. Returns what it did.
    pub(crate) async fn move_rollouts(&self, leader: &str) -> Result<Vec<Moved>, RolloutError> {
        let Some(database) = &self.database else {
            return Ok(Vec::new());
        };
        if database.health().is_memory() {
            return Ok(Vec::new());
        }
        let seen = [
            RolloutState::Running.as_str(),
            RolloutState::Paused.as_str(),
            RolloutState::RolledBack.as_str(),
        ];
        let all = database.store().rollouts_in(&seen).await?;
        self.note_seen(&all);
        let mut hosts = None;
        let mut moved = Vec::new();
        for stored in all {
            let is_open = OPEN.contains(&stored.state.as_str());
            let files = self
                .seats
                .files(&stored.seat)
                .filter(|files| files.file().is_none());
            let Some(files) = files.filter(|_| is_open) else {
                continue;
            };
            if !leads(database, &stored, leader).await? {
                continue;
            }
            let hosts = match &mut hosts {
                Some(hosts) => hosts,
                None => hosts.insert(self.hosts(database).await?),
            };
            let seat = stored.seat.clone();
            let read = match read(stored) {
                Ok(read) => read,
                Err(error) => {
                    self.tell_once(&seat, Some(&error));
                    continue;
                }
            };
            match self.move_one(database, &files, read, hosts).await {
                Ok(done) => {
                    self.tell_once(&seat, None);
                    moved.extend(done);
                }
                Err(error) => self.tell_once(&seat, Some(&error)),
            }
        }
        Ok(moved)
    }

    /// Notes the roll-outs that were read, and has the seats of this host count what their gates need.
    fn note_seen(&self, all: &[StoredRollout]) {
        let before = std::mem::replace(&mut *self.seen_rollouts.lock(), all.to_vec());
        let is_open = |stored: &&StoredRollout| OPEN.contains(&stored.state.as_str());
        let open: BTreeMap<_, _> = all
            .iter()
            .filter(is_open)
            .map(|stored| (&stored.seat, stored))
            .collect();
        let ended = before.iter().filter(is_open).map(|stored| &stored.seat);
        for seat in ended.filter(|seat| !open.contains_key(seat)) {
            if let Some(files) = self.seats.files(seat) {
                files.seat().serve_rollout(None);
            }
        }
        for (seat, stored) in open {
            // What cannot be read is told by the host that leads it.
            let plan = Plan::of_stored(&stored.steps, &stored.gates).ok();
            if let Some(files) = self.seats.files(seat) {
                let verdicts = plan.map(|plan| plan.gates.max_differing.is_some());
                files.seat().serve_rollout(verdicts);
            }
        }
    }

    /// Logs an error of a roll-out, unless it is that of the look before.
    fn tell_once(&self, seat: &str, error: Option<&RolloutError>) {
        let mut errors = self.rollout_errors.lock();
        let Some(error) = error else {
            errors.remove(seat);
            return;
        };
        let before = errors.insert(seat.to_owned(), error.clone());
        if before.as_ref() != Some(error) {
            tracing::warn!(
                event = "rollout_not_moved",
                seat,
                %error,
                "roll-out not moved, the next look tries again"
            );
        }
    }

    /// The roll-outs that this host has read last: those that go on, and those that were rolled back.
    pub fn seen_rollouts(&self) -> Vec<StoredRollout> {
        self.seen_rollouts.lock().clone()
    }

    async fn move_one(
        &self,
        database: &Database,
        files: &Arc<PolicyFiles>,
        read: Read,
        hosts: &[HostRow],
    ) -> Result<Option<Moved>, RolloutError> {
        let Read {
            stored: before,
            rollout,
        } = read;
        let look = Look::new(database, &before, &rollout, hosts).await?;
        let seen = look.observed();
        let next = rollout.next(&seen);
        let Some((after, change)) = moved(&rollout, &next, rollout.reference_after(&seen)) else {
            return Ok(None);
        };
        let row = stored(&after, &before);
        if !database
            .move_rollout(
                files,
                change,
                (&before, &row),
                BY_ROLLOUT,
                Some(look.seat.revision),
            )
            .await?
        {
            // Another host or an operator was first.
            return Ok(None);
        }
        let what = tell(&after, &next);
        Ok(Some(Moved {
            seat: after.seat,
            generation: after.generation,
            what,
        }))
    }

    async fn set_rollout(
        &self,
        seat: &str,
        from: &[RolloutState],
        (state, asked): (RolloutState, &'static str),
        by: &str,
    ) -> Result<RolloutStatus, RolloutError> {
        let (files, database) = self.of_rollout(seat)?;
        for _ in 0..TRIES {
            let before = self.stored_rollout(database, seat).await?;
            if before.revision == 0 {
                return Err(RolloutError::Unknown(seat.to_owned()));
            }
            let now = RolloutState::of(&before.state);
            // One that cannot be read can be aborted.
            let is_unknown = now.is_none() && state == RolloutState::Aborted;
            if !now.is_some_and(|now| from.contains(&now)) && !is_unknown {
                let (seat, state) = (seat.to_owned(), before.state);
                return Err(RolloutError::State { seat, state, asked });
            }
            let after = StoredRollout {
                state: state.as_str().to_owned(),
                why: match state {
                    RolloutState::Aborted if now == Some(RolloutState::RolledBack) => {
                        before.why.clone()
                    }
                    RolloutState::Aborted => format!("ended by {by}"),
                    RolloutState::Running
                    | RolloutState::Paused
                    | RolloutState::Done
                    | RolloutState::RolledBack => String::new(),
                },
                ..before.clone()
            };
            let has_trial = now != Some(RolloutState::RolledBack)
                && state == RolloutState::Aborted
                && self.is_on_trial(database, &before).await?;
            let change = has_trial.then_some(Change::EndTrial);
            if database
                .move_rollout(&files, change, (&before, &after), by, None)
                .await?
            {
                return match read(self.stored_rollout(database, seat).await?) {
                    Ok(read) => {
                        let hosts = self.hosts(database).await?;
                        self.status_of(database, read, &hosts).await
                    }
                    Err(error) => Err(error),
                };
            }
        }
        Err(RolloutError::Busy(seat.to_owned()))
    }

    /// Whether the seat has the candidate of the roll-out.
    async fn is_on_trial(
        &self,
        database: &Database,
        rollout: &StoredRollout,
    ) -> Result<bool, RolloutError> {
        let row = database.store().seat(&rollout.seat).await?;
        let candidate = row.and_then(|row| row.candidate);
        Ok(candidate.is_some_and(|(number, _)| number == rollout.generation))
    }

    async fn status_of(
        &self,
        database: &Database,
        read: Read,
        hosts: &[HostRow],
    ) -> Result<RolloutStatus, RolloutError> {
        let Read { stored, rollout } = read;
        let look = Look::new(database, &stored, &rollout, hosts).await?;
        let seen = look.observed();
        let waits = match rollout.next(&seen) {
            Next::Wait(Wait::Over) => String::new(),
            Next::Wait(wait) => wait.to_string(),
            Next::Step(_) | Next::Finish => "its gates hold: the next step begins".to_owned(),
            Next::RollBack(reason) => format!("is about to be rolled back: {reason}"),
            Next::Abandon(reason) => format!("is about to end: {reason}"),
        };
        let there = look.hosts.iter().filter(|host| host.is_there).count();
        Ok(RolloutStatus {
            tally: Tally::sum(&look.hosts),
            waits,
            elapsed: look.elapsed,
            hosts: (there, look.hosts.len()),
            leader: stored.leader.filter(|_| stored.lead_ms > 0),
            changed_by: stored.changed_by,
            changed_at: stored.changed_at,
            rollout,
        })
    }

    /// The files of a seat whose policies are in the database, and the database.
    fn of_rollout(&self, seat: &str) -> Result<(Arc<PolicyFiles>, &Database), RolloutError> {
        let files = self.seat_files(seat)?;
        must_be_pushed(&files)?;
        match &self.database {
            Some(database) if !database.health().is_memory() => Ok((files, database)),
            Some(_) | None => Err(RolloutError::NoDatabase),
        }
    }

    /// The row of a seat; one of revision 0 if there is none.
    async fn stored_rollout(
        &self,
        database: &Database,
        seat: &str,
    ) -> Result<StoredRollout, RolloutError> {
        let found = database.store().rollouts(Some(seat)).await?;
        Ok(found.into_iter().next().unwrap_or_else(|| StoredRollout {
            seat: seat.to_owned(),
            ..StoredRollout::default()
        }))
    }
}

impl Look {
    async fn new(
        database: &Database,
        stored: &StoredRollout,
        rollout: &Rollout,
        hosts: &[HostRow],
    ) -> Result<Self, RolloutError> {
        let seat = database
            .store()
            .seat(&rollout.seat)
            .await?
            .unwrap_or_default();
        let end = match rollout.state.is_over() {
            true => stored.changed_at,
            false => stored.now,
        };
        let elapsed = u64::try_from(end.saturating_sub(stored.step_at)).unwrap_or(0);
        let step = (rollout.generation, rollout.trial());
        let alive = hosts.iter().filter(|host| host.is_alive());
        let hosts = alive.filter_map(|host| {
            let state = host.state.as_ref();
            let own = state.and_then(|state| state.seats.get(&rollout.seat));
            HostSeen::of(&host.host, own, step, seat.revision)
        });
        Ok(Self {
            hosts: hosts.collect(),
            elapsed: Duration::from_millis(elapsed),
            seat,
        })
    }

    fn observed(&self) -> Observed<'_> {
        let candidate = self.seat.candidate;
        Observed {
            elapsed: self.elapsed,
            active: self.seat.active,
            candidate: candidate.map(|(number, trial)| (number, trial_of(trial))),
            changed_by: &self.seat.changed_by,
            hosts: &self.hosts,
        }
    }
}

/// Logs a move that led to this roll-out, and returns its text.
fn tell(after: &Rollout, next: &Next) -> String {
    let (seat, generation) = (&*after.seat, after.generation);
    let step = after.step_text();
    match next {
        Next::Wait(_) => String::new(),
        Next::Step(_) => {
            tracing::info!(
                event = "rollout_step",
                seat,
                generation,
                step,
                "next step of the roll-out"
            );
            step
        }
        Next::Finish => {
            tracing::info!(
                event = "rollout_done",
                seat,
                generation,
                "roll-out done, the generation is active on all hosts"
            );
            "done: the generation is active".to_owned()
        }
        Next::RollBack(reason) => {
            tracing::error!(
                event = "rollout_rolled_back",
                seat,
                generation,
                step,
                reason,
                "generation rolled back on all hosts"
            );
            format!("rolled back at {step}: {reason}")
        }
        Next::Abandon(reason) => {
            tracing::warn!(
                event = "rollout_abandoned",
                seat,
                generation,
                reason,
                "roll-out ended, the seat was changed meanwhile"
            );
            format!("ended: {reason}")
        }
    }
}

/// Whether this process leads a roll-out now.
async fn leads(
    database: &Database,
    stored: &StoredRollout,
    leader: &str,
) -> Result<bool, RolloutError> {
    let left = u64::try_from(stored.lead_ms).unwrap_or(0);
    let is_held = left > 0 && Duration::from_millis(left) <= 2 * LEASE;
    match &stored.leader {
        Some(other) if is_held && other != leader => return Ok(false),
        Some(_) if is_held && Duration::from_millis(left) > EXTENDED => return Ok(true),
        Some(_) | None => {}
    }
    let seat = &stored.seat;
    Ok(database.store().lead_rollout(seat, leader, LEASE).await?)
}

/// The roll-out after a move, and the change of its seat; `None` if it waits.
fn moved(
    rollout: &Rollout,
    next: &Next,
    reference: Reference,
) -> Option<(Rollout, Option<Change>)> {
    let mut after = rollout.clone();
    let change = match next {
        Next::Wait(_) => return None,
        Next::Step(step) => {
            after.step = *step;
            after.reference = reference;
            Some(Change::TryOut(after.generation, after.trial()))
        }
        Next::Finish => {
            after.state = RolloutState::Done;
            Some(Change::Activate(after.generation))
        }
        Next::RollBack(reason) => {
            after.state = RolloutState::RolledBack;
            after.why.clone_from(reason);
            Some(Change::EndTrial)
        }
        Next::Abandon(reason) => {
            after.state = RolloutState::Aborted;
            after.why.clone_from(reason);
            None
        }
    };
    Some((after, change))
}

/// The row of a roll-out that was read as `before`.
fn stored(rollout: &Rollout, before: &StoredRollout) -> StoredRollout {
    let (steps, gates) = rollout.plan.stored();
    StoredRollout {
        seat: rollout.seat.clone(),
        generation: rollout.generation,
        base: rollout.base,
        steps,
        gates,
        step: rollout.step as u64,
        reference_ns: rollout.reference.mean_ns,
        reference_p99_ns: rollout.reference.p99_ns,
        state: rollout.state.as_str().to_owned(),
        why: rollout.why.clone(),
        ..before.clone()
    }
}

fn read(stored: StoredRollout) -> Result<Read, RolloutError> {
    let unreadable = |cause: String| RolloutError::Unreadable {
        seat: stored.seat.clone(),
        cause,
    };
    let state = RolloutState::of(&stored.state);
    let state = state.ok_or_else(|| unreadable(format!("its state `{}`", stored.state)))?;
    let plan = Plan::of_stored(&stored.steps, &stored.gates).map_err(unreadable)?;
    let step = usize::try_from(stored.step)
        .ok()
        .filter(|step| *step < plan.steps().len());
    let step = step.ok_or_else(|| unreadable(format!("its step {}", stored.step)))?;
    let rollout = Rollout {
        seat: stored.seat.clone(),
        generation: stored.generation,
        base: stored.base,
        plan,
        step,
        state,
        why: stored.why.clone(),
        reference: Reference {
            mean_ns: stored.reference_ns,
            p99_ns: stored.reference_p99_ns,
        },
    };
    Ok(Read { stored, rollout })
}
