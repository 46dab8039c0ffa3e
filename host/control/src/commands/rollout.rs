//! `rollout.…`, over HTTP: generations that are moved over all hosts of a database in steps.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::{TokenRole, parse_duration};
use portcullis_rollout::staged::{Gates, Plan, PlanError, RolloutState as Stored, step_text};
use portcullis_rollout::{RolloutError, RolloutStatus as Read};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{fault as ship_fault, generation};
use super::{Dispatch, Procedure, Timestamp};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Given, Operation, Routes, Segments, answer};

/// The steps of a plan that names none.
const STEPS: &str = "1%,10%,100%";

/// The time of each step of a plan that names none.
const STEP_TIME: Duration = Duration::from_secs(600);

/// The path of a seat.
const SEAT: &str = "/v1/rollouts/{seat}";

/// Error statuses of changes of a roll-out.
const CHANGES: &[u16] = &[400, 404, 409, 415, 422, 429, 500, 503];

/// `rollout.start`.
#[derive(Debug)]
pub(crate) struct StartRollout {
    seat: String,
    generation: u64,
    plan: Plan,
}

/// `rollout.list`.
#[derive(Debug)]
pub(crate) struct ListRollouts;

/// `rollout.show`.
#[derive(Debug)]
pub(crate) struct ShowRollout {
    seat: String,
}

/// The plan of a roll-out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct PlanQuery {
    /// Number of the generation
    #[schemars(with = "Option<u64>", extend("maximum" = u64::MAX))]
    generation: Option<String>,
    /// Steps: shadow (only as the first one) and growing shares up to 100% (default: 1%,10%,100%)
    steps: Option<String>,
    /// Shortest time of each step (default: 10m)
    step_time: Option<String>,
    /// Most failed calls of the candidate, as a part of its calls on all hosts (default: 0.1%)
    max_failures: Option<String>,
    /// Most calls with another verdict than the active generation, as a part of those that are compared, or off (default: 1%)
    max_differing: Option<String>,
    /// Longest duration of a call of a canary, in the mean and at the 99th percentile, compared with the active generation, or off (default: 2x)
    max_latency: Option<String>,
    /// Calls of the candidate on all hosts that each step needs (default: 100)
    #[schemars(with = "Option<u64>")]
    min_calls: Option<String>,
    /// Who starts it
    author: Option<String>,
}

/// The author of a change.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct AuthorQuery {
    /// Who changes it
    author: Option<String>,
}

/// A roll-out of a generation over all hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutStatus {
    /// The seat.
    pub seat: String,
    /// The generation.
    pub generation: u64,
    /// The generation that was active before.
    pub base: u64,
    /// Whether it goes on.
    pub state: RolloutState,
    /// Why it is in this state; null if it goes on as planned.
    pub why: Option<String>,
    /// What it waits for; null if it is over.
    pub waits: Option<String>,
    /// The number of the current step, from 1.
    pub step: u64,
    /// The steps.
    pub steps: Vec<RolloutStep>,
    /// How long the current step has lasted, in seconds.
    pub elapsed_seconds: u64,
    /// The gates.
    pub gates: RolloutGates,
    /// What the hosts say of the current step.
    pub seen: RolloutSeen,
    /// The host and process that moves it; null if there is none.
    pub leader: Option<String>,
    /// The author of the last change.
    pub changed_by: String,
    /// When it was changed last, by the clock of the database.
    pub changed_at: Timestamp,
}

/// Whether a roll-out goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutState {
    /// Steps follow each other.
    Running,
    /// It stays at its step until somebody resumes it. Its gates still roll it back.
    Paused,
    /// The generation is active.
    Done,
    /// A gate has failed: the generation before decides on all dialogs.
    RolledBack,
    /// Somebody has ended it, or has changed the seat.
    Aborted,
}

/// A step of a roll-out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutStep {
    /// shadow, or the share of the dialogs.
    pub share: String,
    /// Its shortest time in seconds.
    pub seconds: u64,
}

/// The gates of a roll-out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutGates {
    /// Most failed calls, as a part of all.
    pub max_failures: String,
    /// Most calls with another verdict than the active generation, as a part of those that are compared: all of a shadow, a sample in other steps;
    /// null for no limit.
    pub max_differing: Option<String>,
    /// Longest duration of a call of a canary, in the mean and at the 99th percentile, as a multiple of that of the active generation; null for no
    /// limit.
    pub max_latency: Option<String>,
    /// Calls that each step needs.
    pub min_calls: u64,
}

/// What all hosts together say of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutSeen {
    /// Hosts that are alive and have the seat.
    pub hosts: u64,
    /// Hosts that have the step.
    pub hosts_there: u64,
    /// Calls of the candidate.
    pub calls: u64,
    /// Failed ones.
    pub failures: u64,
    /// Calls that were compared: all of a shadow, a sample in other steps.
    pub compared: u64,
    /// Those with another verdict.
    pub differing: u64,
    /// Mean duration of a call of the candidate in nanoseconds; null without calls.
    pub mean_ns: Option<u64>,
    /// The same for the active generation since the step began.
    pub active_mean_ns: Option<u64>,
    /// 99th percentile of the duration of a call of the candidate in nanoseconds, up to 25 % too long; null for a shadow, and without calls.
    pub p99_ns: Option<u64>,
    /// The same for the active generation.
    pub active_p99_ns: Option<u64>,
}

impl Procedure for StartRollout {
    type Reply = RolloutStatus;

    const NEEDS: TokenRole = TokenRole::Ship;

    fn subject(&self) -> Option<String> {
        let steps = self.plan.steps().iter();
        let steps: Vec<_> = steps.map(|step| step_text(step.trial)).collect();
        Some(format!(
            "{}: generation {}, {}",
            self.seat,
            self.generation,
            steps.join(", ")
        ))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<RolloutStatus, Fault> {
        let Self {
            seat,
            generation,
            plan,
        } = self;
        let deployments = control.registry.deployments();
        let by = caller.to_string();
        reply(
            deployments
                .start_rollout(&seat, generation, plan, &by)
                .await,
        )
    }
}

impl Procedure for ListRollouts {
    type Reply = Vec<RolloutStatus>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Self::Reply, Fault> {
        let all = control.registry.deployments().rollouts().await;
        let all = all.map_err(|error| fault(&error))?;
        Ok(all.into_iter().map(RolloutStatus::from).collect())
    }
}

impl Procedure for ShowRollout {
    type Reply = RolloutStatus;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<RolloutStatus, Fault> {
        reply(control.registry.deployments().rollout(&self.seat).await)
    }
}

/// A change of the roll-out of a seat: its type, and its operation over HTTP.
macro_rules! change {
    ($(#[$doc:meta])* $type:ident, $change:ident, $path:literal, $id:literal, $summary:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $type {
            seat: String,
        }

        impl Procedure for $type {
            type Reply = RolloutStatus;

            const NEEDS: TokenRole = TokenRole::Ship;

            fn subject(&self) -> Option<String> {
                Some(self.seat.clone())
            }

            async fn execute(self, control: &Control, caller: &Caller) -> Result<RolloutStatus, Fault> {
                let deployments = control.registry.deployments();
                reply(deployments.$change(&self.seat, &caller.to_string()).await)
            }
        }

        impl $type {
            #[doc = concat!("`POST ", $path, "`.")]
            pub(crate) fn operation(routes: Routes) -> Routes {
                let post = Operation::new::<RolloutStatus>(Method::POST, $path, $id, $summary);
                let post = post.query::<AuthorQuery>(&[]).answers(200, "The roll-out");
                routes.on(post.refuses(CHANGES), change::<Self>)
            }
        }

        impl From<String> for $type {
            fn from(seat: String) -> Self {
                Self { seat }
            }
        }
    };
}

change! {
    /// `rollout.pause`.
    PauseRollout, pause_rollout, "/v1/rollouts/{seat}/pause", "pauseRollout",
    "Hold a roll-out at its step; its gates still roll it back"
}

change! {
    /// `rollout.resume`.
    ResumeRollout, resume_rollout, "/v1/rollouts/{seat}/resume", "resumeRollout",
    "Have a paused roll-out go on"
}

change! {
    /// `rollout.abort`.
    AbortRollout, abort_rollout, "/v1/rollouts/{seat}/abort", "abortRollout",
    "End a roll-out and its trial, or the alert of one that was rolled back"
}

impl StartRollout {
    /// `POST /v1/rollouts/{seat}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<RolloutStatus>(
            Method::POST,
            SEAT,
            "startRollout",
            "Roll a generation out over all hosts in steps; a gate that fails rolls it back on all of them",
        );
        let post = post
            .query::<PlanQuery>(&["generation"])
            .answers(200, "The first step has begun");
        routes.on(post.refuses(CHANGES), start)
    }
}

impl ListRollouts {
    /// `GET /v1/rollouts`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<Vec<RolloutStatus>>(
            Method::GET,
            "/v1/rollouts",
            "listRollouts",
            "List the last roll-out of each seat",
        );
        let get = get.answers(200, "The roll-outs");
        routes.on(get.refuses(&[409, 422, 503]), list)
    }
}

impl ShowRollout {
    /// `GET /v1/rollouts/{seat}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<RolloutStatus>(
            Method::GET,
            SEAT,
            "showRollout",
            "Show the last roll-out of a seat",
        );
        let get = get.answers(200, "The roll-out");
        routes.on(get.refuses(&[404, 409, 422, 503]), show)
    }
}

async fn start(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<PlanQuery>,
) -> Answer {
    let caller = caller.called(query.author.clone());
    let start = StartRollout {
        seat,
        generation: generation(query.generation.as_deref().unwrap_or_default())?,
        plan: plan_of(&query)?,
    };
    answer(start.dispatch(&control, &caller).await)
}

async fn list(State(control): Api, Extension(caller): Extension<Caller>) -> Answer {
    answer(ListRollouts.dispatch(&control, &caller).await)
}

async fn show(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
) -> Answer {
    answer(ShowRollout { seat }.dispatch(&control, &caller).await)
}

async fn change<C: Dispatch + From<String>>(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<AuthorQuery>,
) -> Answer {
    let caller = caller.called(query.author);
    answer(C::from(seat).dispatch(&control, &caller).await)
}

/// Reads a plan.
///
/// # Errors
/// 400 if a value cannot be read, 422 if the plan is wrong.
fn plan_of(query: &PlanQuery) -> Result<Plan, Fault> {
    let wrong = |error: PlanError| fault(&error.into());
    let mut gates = Gates::default();
    if let Some(text) = &query.max_failures {
        gates.max_failures = Gates::parse_share(text).map_err(wrong)?;
    }
    if let Some(text) = &query.max_differing {
        gates.max_differing = Gates::parse_differing(text).map_err(wrong)?;
    }
    if let Some(text) = &query.max_latency {
        gates.max_latency = Gates::parse_latency(text).map_err(wrong)?;
    }
    if let Some(text) = &query.min_calls {
        gates.min_calls = text.parse().map_err(|_| {
            let text = format!("min_calls: `{}` is not a number", text.escape_debug());
            Fault::new(400, text)
        })?;
    }
    let time = match &query.step_time {
        None => STEP_TIME,
        Some(text) => parse_duration(text).ok_or_else(|| {
            let text = format!(
                "step_time: `{}` is not a time: write for example 10m",
                text.escape_debug()
            );
            Fault::new(400, text)
        })?,
    };
    let steps = query.steps.as_deref().unwrap_or(STEPS);
    Plan::parse(steps, time, gates).map_err(wrong)
}

fn reply(read: Result<Read, RolloutError>) -> Result<RolloutStatus, Fault> {
    read.map(RolloutStatus::from).map_err(|error| fault(&error))
}

fn fault(error: &RolloutError) -> Fault {
    let code = match error {
        RolloutError::Plan(_) | RolloutError::Unreadable { .. } => 422,
        RolloutError::Unknown(_) => 404,
        RolloutError::NoDatabase
        | RolloutError::NoHosts
        | RolloutError::Goes { .. }
        | RolloutError::OnTrial { .. }
        | RolloutError::Nothing(_)
        | RolloutError::Active { .. }
        | RolloutError::State { .. } => 409,
        RolloutError::Busy(_) => 429,
        RolloutError::Ship(error) => return ship_fault(error),
    };
    Fault::new(code, error.to_string())
}

impl From<Read> for RolloutStatus {
    fn from(read: Read) -> Self {
        let Read {
            rollout,
            tally,
            waits,
            elapsed,
            hosts: (there, hosts),
            leader,
            changed_by,
            changed_at,
        } = read;
        let present = |text: String| (!text.is_empty()).then_some(text);
        let mean = |us: u64, calls: u64| us.saturating_mul(1_000).checked_div(calls);
        let gates = rollout.plan.gates;
        let steps = rollout.plan.steps().iter().map(|step| RolloutStep {
            share: step_text(step.trial),
            seconds: step.time.as_secs(),
        });
        let since = UNIX_EPOCH.checked_add(Duration::from_millis(changed_at.unsigned_abs()));
        Self {
            step: rollout.step as u64 + 1,
            steps: steps.collect(),
            state: rollout.state.into(),
            seat: rollout.seat,
            generation: rollout.generation,
            base: rollout.base,
            why: present(rollout.why),
            waits: present(waits),
            elapsed_seconds: elapsed.as_secs(),
            gates: RolloutGates {
                max_failures: gates.max_failures.to_string(),
                max_differing: gates.max_differing.map(|share| share.to_string()),
                max_latency: gates.max_latency.map(|factor| factor.to_string()),
                min_calls: gates.min_calls,
            },
            seen: RolloutSeen {
                hosts: hosts as u64,
                hosts_there: there as u64,
                calls: tally.calls,
                failures: tally.failures,
                compared: tally.compared,
                differing: tally.differing,
                mean_ns: mean(tally.time_us, tally.calls),
                active_mean_ns: mean(tally.active_time_us, tally.active_calls),
                p99_ns: tally.durations.percentile(99),
                active_p99_ns: tally.active_durations.percentile(99),
            },
            leader,
            changed_by,
            changed_at: since.unwrap_or(SystemTime::UNIX_EPOCH).into(),
        }
    }
}

impl From<Stored> for RolloutState {
    fn from(state: Stored) -> Self {
        match state {
            Stored::Running => Self::Running,
            Stored::Paused => Self::Paused,
            Stored::Done => Self::Done,
            Stored::RolledBack => Self::RolledBack,
            Stored::Aborted => Self::Aborted,
        }
    }
}

impl fmt::Display for RolloutState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::RolledBack => "rolled back",
            Self::Aborted => "aborted",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_defaults_and_tells_what_is_wrong() {
        let plan = plan_of(&PlanQuery::default()).unwrap();
        let shares: Vec<_> = plan
            .steps()
            .iter()
            .map(|step| step_text(step.trial))
            .collect();
        assert_eq!(shares, ["1%", "10%", "100%"]);
        assert_eq!(
            (plan.steps()[0].time, plan.gates),
            (STEP_TIME, Gates::default())
        );
        let query = |steps: &str, step_time: &str, max_latency: &str| PlanQuery {
            steps: Some(steps.into()),
            step_time: Some(step_time.into()),
            max_latency: Some(max_latency.into()),
            min_calls: Some("0".into()),
            ..PlanQuery::default()
        };
        let plan = plan_of(&query("shadow,100%", "1s", "off")).unwrap();
        assert_eq!((plan.gates.max_latency, plan.gates.min_calls), (None, 0));
        for (query, code, expected) in [
            (query("1%", "1s", "off"), 422, "the last step is 1%"),
            (query("100%", "long", "off"), 400, "`long` is not a time"),
            (query("100%", "1s", "fast"), 422, "`fast` is not a factor"),
        ] {
            let fault = plan_of(&query).unwrap_err();
            assert_eq!(fault.code, code, "{}", fault.message);
            assert!(fault.message.contains(expected), "{}", fault.message);
        }
    }
}
