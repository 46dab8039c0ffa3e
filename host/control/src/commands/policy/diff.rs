//! `policy.diff`: the differences between the candidate and the active generation of a seat.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Timestamp;
use super::{Dispatch, FromCall, Procedure, files_of, seat_or_default};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Operation, Routes, Segments, answer};

/// `policy.diff`.
#[derive(Debug)]
pub(crate) struct Diff {
    pub(crate) seat: String,
}

/// The reply of `policy.diff`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Active generation.
    pub active: u64,
    /// Candidate.
    pub candidate: u64,
    /// Policy calls with the same answer: a verdict, or a step after failures.
    pub same: u64,
    /// Policy calls with different answers.
    pub different: u64,
    /// Policy calls that the candidate has not repeated.
    pub not_compared: u64,
    /// The last policy calls with different answers.
    pub samples: Vec<Difference>,
}

/// A policy call with different answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Time.
    pub at: Timestamp,
    /// Source of the request.
    pub source: String,
    /// Answer of the active generation.
    pub active: String,
    /// Answer of the candidate.
    pub candidate: String,
    /// The request, without what `[records]` masks.
    pub request: String,
}

impl FromCall for Diff {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let seat = seat_or_default(call)?;
        Ok(Self { seat })
    }
}

impl Procedure for Diff {
    type Reply = Comparison;

    const NEEDS: TokenRole = TokenRole::Read;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<Comparison, Fault> {
        let files = files_of(control, &self.seat)?;
        let seat = &files.seat().name;
        let Some(comparison) = files.seat().comparison() else {
            let lineup = files.seat().slot.guard();
            let text = match lineup.as_ref().and_then(|lineup| lineup.shadow()) {
                Some(candidate) => format!(
                    "generation {} is in a shadow trial at the seat `{seat}`, and there has been no request since: try again later",
                    candidate.number
                ),
                None => {
                    format!("no shadow trial at the seat `{seat}`: start one with policy.shadow")
                }
            };
            return Err(Fault::new(404, text));
        };
        let samples = comparison.samples().into_iter();
        let samples = samples.map(|difference| Difference {
            at: difference.at.into(),
            source: difference.source.to_string(),
            active: difference.active,
            candidate: difference.candidate,
            request: difference.request,
        });
        Ok(Comparison {
            active: comparison.active,
            candidate: comparison.candidate,
            same: comparison.same(),
            different: comparison.different(),
            not_compared: comparison.not_compared(),
            samples: samples.collect(),
        })
    }
}

impl Diff {
    /// `GET /v1/policies/{seat}/candidate`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<Comparison>(
            Method::GET,
            "/v1/policies/{seat}/candidate",
            "compareCandidate",
            "Compare the verdicts of the candidate with those of the active generation",
        );
        routes.on(get.answers(200, "The comparison").refuses(&[404]), compare)
    }
}

async fn compare(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
) -> Answer {
    answer(Diff { seat }.dispatch(&control, &caller).await)
}
