//! What a roll-out does next: a state machine without effects and without a clock.

use std::time::Duration;

use portcullis_fleet::directory::SeatState;
use portcullis_policy::{Durations, Share, Trial};

use super::plan::{Factor, Gates, Plan, step_text};

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
    /// Durations of calls of the active generation in an earlier step.
    pub reference: Reference,
}

/// Durations of calls of the active generation in an earlier step, in nanoseconds; `None` if it had too few calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// The mean.
    pub mean_ns: Option<u64>,
    /// The 99th percentile.
    pub p99_ns: Option<u64>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls of the candidate.
    pub calls: u64,
    /// Failed ones of them.
    pub failures: u64,
    /// Calls whose verdict was compared with that of the other generation.
    pub compared: u64,
    /// Those with another verdict.
    pub differing: u64,
    /// Total duration of `calls`, in microseconds.
    pub time_us: u64,
    /// How long `calls` took, in a canary step.
    pub durations: Durations,
    /// Calls of the active generation.
    pub active_calls: u64,
    /// Total duration of `active_calls`, in microseconds.
    pub active_time_us: u64,
    /// How long `active_calls` took, in a canary step.
    pub active_durations: Durations,
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
    /// Calls that are compared.
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

    /// The durations of calls of the active generation to compare later steps with: those of this step if there were enough calls, else those of
    /// an earlier one.
    pub fn reference_after(&self, seen: &Observed<'_>) -> Reference {
        let tally = Tally::sum(seen.hosts);
        let own = tally.active(self.plan.gates.min_calls);
        Reference {
            mean_ns: own.mean_ns.or(self.reference.mean_ns),
            p99_ns: own.p99_ns.or(self.reference.p99_ns),
        }
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
            failed(&self.plan.gates, self.trial(), &tally, self.reference)
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
        // A step that compares nothing that counts does not wait for it.
        if self.plan.gates.max_differing.is_some() && tally.compared < need {
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
fn failed(gates: &Gates, trial: Trial, tally: &Tally, reference: Reference) -> Option<String> {
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
    if let Some(most) = gates.max_differing
        && exceeds(differing, compared.max(gates.min_calls), most)
    {
        return Some(format!(
            "differing verdicts: {differing} of {compared} compared calls differ, at most {most} may"
        ));
    }
    match trial {
        // A shadow waits for its turn beside the workers: its durations say nothing.
        Trial::Shadow => None,
        Trial::Canary(_) => failed_latency(gates, tally, reference),
    }
}

/// A canary decides on the path of the message, and so does the active generation: their durations can be compared.
fn failed_latency(gates: &Gates, tally: &Tally, reference: Reference) -> Option<String> {
    let most = gates.max_latency?;
    let least = gates.min_calls.max(1);
    if tally.calls < least {
        return None;
    }
    let active = tally.active(least);
    let mean_ns = active.mean_ns.or(reference.mean_ns);
    let p99_ns = active.p99_ns.or(reference.p99_ns);
    let slow_mean = mean_ns.and_then(|active| slow_mean(tally, active, most));
    slow_mean.or_else(|| slow_hundredth(tally, p99_ns?, most))
}

fn slow_mean(tally: &Tally, active: u64, most: Factor) -> Option<String> {
    let own = mean_ns(tally.time_us, tally.calls)?;
    let is_slow = u128::from(own) * 100 > u128::from(active) * u128::from(most.hundredths());
    is_slow.then(|| {
        let (own, active) = (Duration::from_nanos(own), Duration::from_nanos(active));
        format!("latency: a call takes {own:.1?} in the mean, and {active:.1?} with the active generation, at most {most} is allowed")
    })
}

/// Compares the 99th percentile: one call in a hundred may be slower than this multiple of that of the active generation, and by chance a few more.
/// Percentiles of few calls differ much by chance, and this count does not.
fn slow_hundredth(tally: &Tally, active: u64, most: Factor) -> Option<String> {
    let bound = u128::from(active) * u128::from(most.hundredths()) / 100;
    let bound = u64::try_from(bound).unwrap_or(u64::MAX);
    let (all, slow) = (tally.durations.total(), tally.durations.at_least(bound));
    (slow > by_chance(all)).then(|| {
        let (bound, active) = (Duration::from_nanos(bound), Duration::from_nanos(active));
        format!(
            "latency: {slow} of {all} calls take {bound:.1?} or more, which is {most} the 99th percentile of the active generation ({active:.1?})"
        )
    })
}

/// The most of this many calls that are above the 99th percentile, unless the percentile is another one: three standard deviations above 1 %.
fn by_chance(calls: u64) -> u64 {
    let expected = calls.div_ceil(100);
    // The root rounded up, so that few calls are not judged.
    let deviation = expected.isqrt() + 1;
    expected.saturating_add(3 * deviation)
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
                durations: merged(sum.durations, &one.durations),
                active_calls: sum.active_calls.saturating_add(one.active_calls),
                active_time_us: sum.active_time_us.saturating_add(one.active_time_us),
                active_durations: merged(sum.active_durations, &one.active_durations),
            }
        })
    }

    /// The durations of calls of the active generation, if there are as many as this.
    fn active(&self, least: u64) -> Reference {
        let least = least.max(1);
        let mean_ns = mean_ns(self.active_time_us, self.active_calls);
        let p99_ns = self.active_durations.percentile(99);
        Reference {
            mean_ns: mean_ns.filter(|_| self.active_calls >= least),
            p99_ns: p99_ns.filter(|_| self.active_durations.total() >= least),
        }
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
            durations: Durations::of_counts(&seat.durations),
            active_calls: seat.active_calls,
            active_time_us: seat.active_time_us,
            active_durations: Durations::of_counts(&seat.active_durations),
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

fn merged(mut sum: Durations, one: &Durations) -> Durations {
    sum.merge(one);
    sum
}

fn mean_ns(time_us: u64, calls: u64) -> Option<u64> {
    time_us.saturating_mul(1_000).checked_div(calls)
}

#[cfg(test)]
mod tests;
