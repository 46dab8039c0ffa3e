//! What a roll-out does next: a state machine without effects and without a clock.

use std::time::Duration;

use portcullis_fleet::directory::SeatState;
use portcullis_policy::{Share, Trial};

use super::plan::{Gates, Plan, step_text};

/// Most names of hosts in a text.
const NAMED: usize = 5;

/// A roll-out of a generation over all hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The seat.
    pub seat: String,
    /// The generation that is rolled out.
    pub generation: u64,
    /// The generation that was active before, and stays active until the end.
    pub base: u64,
    /// The plan.
    pub plan: Plan,
    /// The number of the current step, from 0.
    pub step: usize,
    /// Whether it goes on.
    pub state: RolloutState,
    /// Why it is in this state.
    pub why: String,
    /// Mean duration of a call of the active generation in an earlier step, in nanoseconds; `None` if it had too few calls.
    pub reference_ns: Option<u64>,
}

/// Whether a roll-out goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RolloutState {
    /// The step ends when its time is over and its gates hold.
    Running,
    /// The step goes on until somebody resumes the roll-out. Its gates still roll back.
    Paused,
    /// The generation is active.
    Done,
    /// A gate has failed: the trial has ended on all hosts.
    RolledBack,
    /// Somebody has ended it, or has changed the seat.
    Aborted,
}

/// The calls of a candidate, and those of the active generation meanwhile, on one or more hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls of the candidate.
    pub calls: u64,
    /// Failed ones of them.
    pub failures: u64,
    /// Calls of a shadow that were compared.
    pub compared: u64,
    /// Calls of a shadow with another verdict.
    pub differing: u64,
    /// Total duration of `calls`, in microseconds.
    pub time_us: u64,
    /// Calls of the active generation.
    pub active_calls: u64,
    /// Total duration of `active_calls`, in microseconds.
    pub active_time_us: u64,
}

/// What was read of the database.
#[derive(Clone, Debug)]
pub struct Observed<'o> {
    /// How long the step has lasted, by the clock of the database.
    pub elapsed: Duration,
    /// The active generation of the seat.
    pub active: Option<u64>,
    /// The candidate of the seat and its trial.
    pub candidate: Option<(u64, Trial)>,
    /// The author of the last change of the seat.
    pub changed_by: &'o str,
    /// The hosts that are alive.
    pub hosts: &'o [HostSeen],
}

/// What a host says of the seat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSeen {
    /// Its name.
    pub name: String,
    /// Whether the seat has the candidate of the step there.
    pub is_there: bool,
    /// Why the host could not carry the step out.
    pub refused: Option<String>,
    /// The counts since the step began there; nothing until it has.
    pub tally: Tally,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet.
    Wait(Wait),
    /// The step with this number begins.
    Step(usize),
    /// The generation becomes active.
    Finish,
    /// A gate has failed, for this reason: the trial ends on all hosts.
    RollBack(String),
    /// The seat is not as the roll-out left it, for this reason: the roll-out ends without a change of the seat.
    Abandon(String),
}

/// What a roll-out waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It is over.
    Over,
    /// Somebody has to resume it.
    Paused,
    /// No host says what it does.
    NoHosts,
    /// These hosts do not have the step yet.
    Hosts(Vec<String>),
    /// The rest of the time of the step.
    Time(Duration),
    /// Calls of the candidate.
    Calls {
        /// Calls until now.
        have: u64,
        /// Calls that are needed.
        need: u64,
    },
    /// Calls of a shadow that were compared.
    Compared {
        /// Those until now.
        have: u64,
        /// Those that are needed.
        need: u64,
    },
}

impl Rollout {
    /// The trial of the current step.
    pub fn trial(&self) -> Trial {
        let steps = self.plan.steps();
        steps[self.step.min(steps.len() - 1)].trial
    }

    /// The current step in words.
    pub fn step_text(&self) -> String {
        let (number, all) = (self.step + 1, self.plan.steps().len());
        format!("step {number} of {all}: {}", step_text(self.trial()))
    }

    /// What to do next.
    ///
    /// A gate that has failed rolls back at once, whether the roll-out is paused or not. No step begins while a gate fails, a host does not
    /// have the step, or the candidate has had too few calls.
    pub fn next(&self, seen: &Observed<'_>) -> Next {
        if self.state.is_over() {
            return Next::Wait(Wait::Over);
        }
        if let Some(reason) = self.overtaken(seen) {
            return Next::Abandon(reason);
        }
        if let Some(reason) = self.failed_gate(seen) {
            return Next::RollBack(reason);
        }
        if let Some(wait) = self.waits_for(seen) {
            return Next::Wait(wait);
        }
        match self.step + 1 < self.plan.steps().len() {
            true => Next::Step(self.step + 1),
            false => Next::Finish,
        }
    }

    /// The mean duration of a call of the active generation, in nanoseconds, to compare later steps with: that of this step if there were
    /// enough calls, else that of an earlier one.
    pub fn reference_after(&self, seen: &Observed<'_>) -> Option<u64> {
        let tally = Tally::sum(seen.hosts);
        let is_enough = tally.active_calls > 0 && tally.active_calls >= self.plan.gates.min_calls;
        let own = mean_ns(tally.active_time_us, tally.active_calls);
        own.filter(|_| is_enough).or(self.reference_ns)
    }

    /// Why the seat is not as the roll-out left it.
    fn overtaken(&self, seen: &Observed<'_>) -> Option<String> {
        let by = seen.changed_by;
        if seen.active != Some(self.base) {
            let now = seen
                .active
                .map_or_else(|| "none".to_owned(), |now| now.to_string());
            let base = self.base;
            return Some(format!(
                "the active generation is {now} instead of {base}: changed by {by}"
            ));
        }
        let generation = self.generation;
        match seen.candidate {
            None => Some(format!(
                "the trial of generation {generation} was ended by {by}"
            )),
            Some((other, _)) if other != generation => Some(format!(
                "generation {other} is on trial instead of {generation}: changed by {by}"
            )),
            Some((_, trial)) if trial != self.trial() => {
                let (now, meant) = (step_text(trial), step_text(self.trial()));
                Some(format!(
                    "the trial is {now} instead of {meant}: changed by {by}"
                ))
            }
            Some(_) => None,
        }
    }

    /// The gate that fails, with its numbers.
    fn failed_gate(&self, seen: &Observed<'_>) -> Option<String> {
        let refused = seen.hosts.iter().find_map(|host| {
            let error = host.refused.as_ref()?;
            Some(format!("{} cannot carry it out: {error}", host.name))
        });
        refused.or_else(|| {
            let tally = Tally::sum(seen.hosts);
            failed(&self.plan.gates, self.trial(), &tally, self.reference_ns)
        })
    }

    fn waits_for(&self, seen: &Observed<'_>) -> Option<Wait> {
        if self.state == RolloutState::Paused {
            return Some(Wait::Paused);
        }
        if seen.hosts.is_empty() {
            return Some(Wait::NoHosts);
        }
        let behind = seen.hosts.iter().filter(|host| !host.is_there);
        let behind: Vec<_> = behind.map(|host| host.name.clone()).collect();
        if !behind.is_empty() {
            return Some(Wait::Hosts(behind));
        }
        let step = &self.plan.steps()[self.step.min(self.plan.steps().len() - 1)];
        if let Some(left) = step
            .time
            .checked_sub(seen.elapsed)
            .filter(|left| !left.is_zero())
        {
            return Some(Wait::Time(left));
        }
        let tally = Tally::sum(seen.hosts);
        let need = self.plan.gates.min_calls;
        if tally.calls < need {
            let have = tally.calls;
            return Some(Wait::Calls { have, need });
        }
        if step.trial == Trial::Shadow && tally.compared < need {
            let have = tally.compared;
            return Some(Wait::Compared { have, need });
        }
        None
    }
}

/// The gate that fails, with its numbers; `None` if all hold.
///
/// Failures and differences are too many as soon as there are more than a step of `min_calls` calls may have: no later call would make
/// them good in time.
fn failed(gates: &Gates, trial: Trial, tally: &Tally, reference_ns: Option<u64>) -> Option<String> {
    let Tally {
        calls,
        failures,
        compared,
        differing,
        ..
    } = *tally;
    if exceeds(failures, calls.max(gates.min_calls), gates.max_failures) {
        let most = gates.max_failures;
        return Some(format!(
            "failures: {failures} of {calls} calls failed, at most {most} may"
        ));
    }
    match trial {
        Trial::Shadow => exceeds(differing, compared.max(gates.min_calls), gates.max_differing).then(|| {
            let most = gates.max_differing;
            format!("differing verdicts: {differing} of {compared} compared calls differ, at most {most} may")
        }),
        Trial::Canary(_) => failed_latency(gates, tally, reference_ns),
    }
}

/// A canary decides on the path of the message, and so does the active generation: their durations can be compared. A shadow waits for
/// its turn beside the workers.
fn failed_latency(gates: &Gates, tally: &Tally, reference_ns: Option<u64>) -> Option<String> {
    let most = gates.max_latency?;
    let least = gates.min_calls.max(1);
    if tally.calls < least {
        return None;
    }
    let own = mean_ns(tally.time_us, tally.calls)?;
    let active = mean_ns(tally.active_time_us, tally.active_calls);
    let active = active
        .filter(|_| tally.active_calls >= least)
        .or(reference_ns)?;
    let is_slow = u128::from(own) * 100 > u128::from(active) * u128::from(most.hundredths());
    is_slow.then(|| {
        let (own, active) = (Duration::from_nanos(own), Duration::from_nanos(active));
        format!("latency: a call takes {own:.1?} in the mean, and {active:.1?} with the active generation, at most {most} is allowed")
    })
}

impl Tally {
    /// The sum over all hosts.
    pub fn sum(hosts: &[HostSeen]) -> Self {
        hosts.iter().fold(Self::default(), |sum, host| {
            let one = &host.tally;
            Self {
                calls: sum.calls.saturating_add(one.calls),
                failures: sum.failures.saturating_add(one.failures),
                compared: sum.compared.saturating_add(one.compared),
                differing: sum.differing.saturating_add(one.differing),
                time_us: sum.time_us.saturating_add(one.time_us),
                active_calls: sum.active_calls.saturating_add(one.active_calls),
                active_time_us: sum.active_time_us.saturating_add(one.active_time_us),
            }
        })
    }
}

impl HostSeen {
    /// What a host says of the seat, if the step is this trial of this generation, stored with this revision. `None` for a host that takes
    /// no part, because it does not have the tenant.
    pub fn of(
        name: &str,
        seat: Option<&SeatState>,
        (generation, trial): (u64, Trial),
        revision: u64,
    ) -> Option<Self> {
        let name = name.to_owned();
        let Some(seat) = seat else {
            return Some(Self {
                name,
                ..Self::default()
            });
        };
        if is_without(seat) {
            return None;
        }
        let share = match trial {
            Trial::Shadow => None,
            Trial::Canary(share) => Some(share.hundredths()),
        };
        let is_there =
            seat.revision >= revision && seat.candidate == Some(generation) && seat.share == share;
        let refused = seat
            .refused
            .as_ref()
            .filter(|refused| refused.revision >= revision);
        let tally = Tally {
            calls: seat.calls,
            failures: seat.failures,
            compared: seat.compared,
            differing: seat.differing,
            time_us: seat.time_us,
            active_calls: seat.active_calls,
            active_time_us: seat.active_time_us,
        };
        Some(Self {
            name,
            is_there,
            refused: refused.map(|refused| refused.error.clone()),
            tally: if is_there { tally } else { Tally::default() },
        })
    }
}

impl RolloutState {
    /// All states.
    pub const ALL: [Self; 5] = [
        Self::Running,
        Self::Paused,
        Self::Done,
        Self::RolledBack,
        Self::Aborted,
    ];

    /// The name, as it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::RolledBack => "rolled-back",
            Self::Aborted => "aborted",
        }
    }

    /// The state of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether nothing follows.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Running | Self::Paused => false,
            Self::Done | Self::RolledBack | Self::Aborted => true,
        }
    }
}

impl std::fmt::Display for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Over => f.write_str("over"),
            Self::Paused => f.write_str("waits for `portcullis fleet rollout resume`"),
            Self::NoHosts => f.write_str("waits: no host announces itself in the database"),
            Self::Hosts(names) => {
                let shown = &names[..names.len().min(NAMED)];
                write!(f, "waits for {}", shown.join(", "))?;
                match names.len() - shown.len() {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::Time(left) => write!(f, "waits {} s more", left.as_secs().max(1)),
            Self::Calls { have, need } => write!(f, "waits for calls: {have} of {need}"),
            Self::Compared { have, need } => {
                write!(f, "waits for compared calls: {have} of {need}")
            }
        }
    }
}

/// Whether a host takes no part in the roll-outs of a seat: it does not have the seat, or a file of the host decides there.
fn is_without(seat: &SeatState) -> bool {
    seat.is_elsewhere || seat.is_file
}

/// Whether a part of a whole is more than a share of it.
fn exceeds(part: u64, whole: u64, share: Share) -> bool {
    u128::from(part) * u128::from(Share::ALL.hundredths())
        > u128::from(whole) * u128::from(share.hundredths())
}

fn mean_ns(time_us: u64, calls: u64) -> Option<u64> {
    time_us.saturating_mul(1_000).checked_div(calls)
}

#[cfg(test)]
mod tests;
