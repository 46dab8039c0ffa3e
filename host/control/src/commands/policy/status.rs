//! `policy.status`: the state of a seat.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_dataplane::notices::Failures;
use portcullis_rollout::policy_files::PolicyFiles;
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Timestamp;
use super::{
    CallStats, Dispatch, FromCall, Procedure, SEAT, SeatMode, digest, file_of, files_of,
    seat_or_default,
};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Operation, Routes, Segments, answer};

/// `policy.status`.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) seat: String,
}

/// The state of a seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SeatStatus {
    /// Name: a tenant, or default, before or after.
    pub seat: String,
    /// File that the seat follows; null if policies are pushed to it, and for a tenant.
    pub file: Option<String>,
    /// Name of the active policy.
    pub name: Option<String>,
    /// Active generation; null if there is none.
    pub generation: Option<u64>,
    /// Digest of the file.
    pub digest: Option<String>,
    /// Time of the load.
    pub loaded_at: Option<Timestamp>,
    /// Whether verdicts are carried out.
    pub mode: SeatMode,
    /// Candidate and trial.
    pub candidate: Option<String>,
    /// Previous generation.
    pub previous: Option<u64>,
    /// Number of successful loads.
    pub loads: u64,
    /// Number of failed loads.
    pub failed_loads: u64,
    /// Generations in memory.
    pub live_generations: u64,
    /// Sandboxes in use and in all, of the seats with the same limits.
    pub sandboxes: String,
    /// Error of the last file; null if it can be used.
    pub error: Option<String>,
    /// Time of that error.
    pub error_at: Option<Timestamp>,
    /// Alert that needs attention.
    pub alert: Option<String>,
    /// Failed calls of all generations.
    pub failed_calls: u64,
    /// The last failed call.
    pub last_failure: Option<PolicyFailure>,
    /// Statistics of the calls of the active generation; absent if there is none.
    #[serde(flatten)]
    pub stats: Option<CallStats>,
}

/// A failed call of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyFailure {
    /// Time.
    pub at: Timestamp,
    /// Kind.
    pub kind: String,
    /// Generation.
    pub generation: u64,
    /// Call-ID of the request.
    pub call_id: String,
    /// Id of the decision.
    pub decision: Option<String>,
    /// Description.
    pub text: String,
}

impl FromCall for Status {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let seat = seat_or_default(call)?;
        Ok(Self { seat })
    }
}

impl Procedure for Status {
    type Reply = SeatStatus;

    const NEEDS: TokenRole = TokenRole::Read;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<SeatStatus, Fault> {
        let files = files_of(control, &self.seat)?;
        let status = SeatStatus::of(&files);
        Ok(match caller.is_operator() {
            true => status,
            false => status.without_file(),
        })
    }
}

impl Status {
    /// `GET /v1/policies/{seat}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get =
            Operation::new::<SeatStatus>(Method::GET, SEAT, "showSeat", "Show the state of a seat");
        routes.on(
            get.answers(200, "The state of the seat").refuses(&[404]),
            status,
        )
    }
}

async fn status(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
) -> Answer {
    answer(Status { seat }.dispatch(&control, &caller).await)
}

impl SeatStatus {
    /// Returns the state of a seat.
    pub(crate) fn of(files: &PolicyFiles) -> Self {
        let slot = files.slot();
        let lineup = slot.lineup();
        let lineup = lineup.as_deref();
        let active = lineup.map(|lineup| &*lineup.active);
        let candidate = lineup.and_then(|lineup| lineup.candidate.as_ref());
        let candidate = candidate
            .map(|candidate| format!("{} ({})", candidate.generation.number, candidate.trial));
        let failed = files.failed();
        let pool = files.runtime().pool_use();
        let (loads, failed_loads) = files.counts();
        let failures = &files.seat().failures;
        Self {
            seat: files.seat().name.to_string(),
            file: file_of(files),
            name: active.map(|one| one.policy.name().to_owned()),
            generation: active.map(|one| one.number),
            digest: active.map(|one| digest(one.policy.digest())),
            loaded_at: active.map(|one| one.loaded_at.into()),
            mode: slot.mode().into(),
            candidate,
            previous: slot.previous(),
            loads,
            failed_loads,
            live_generations: slot.live_generations() as u64,
            sandboxes: format!("{} of {}", pool.live, pool.size),
            error: failed.as_ref().map(|failed| failed.error.clone()),
            error_at: failed.map(|failed| failed.at.into()),
            alert: files.seat().alert().map(|alert| alert.text),
            failed_calls: failures.total(),
            last_failure: PolicyFailure::last(failures),
            stats: active.map(CallStats::of),
        }
    }

    /// The same for a tenant, which does not learn where the file is.
    fn without_file(mut self) -> Self {
        let Some(file) = self.file.take() else {
            return self;
        };
        self.error = self.error.map(|error| error.replace(&file, "the file"));
        self
    }
}

impl PolicyFailure {
    fn last(failures: &Failures) -> Option<Self> {
        let last = failures.last()?;
        Some(Self {
            at: last.at.into(),
            kind: last.kind.as_str().to_owned(),
            generation: last.generation,
            call_id: last.call_id,
            decision: last.decision.map(|id| id.to_string()),
            text: last.text,
        })
    }
}
