//! `policy.diff`: what the candidate of a seat decides otherwise.

use axum::extract::{Extension, State};
use axum::http::Method;
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
    /// The generation that serves.
    pub active: u64,
    /// The one that is tried.
    pub candidate: u64,
    /// Requests on which both decided alike.
    pub same: u64,
    /// Requests on which they did not.
    pub different: u64,
    /// Requests on which the candidate was not asked.
    pub not_compared: u64,
    /// The last requests on which they did not decide alike.
    pub samples: Vec<Difference>,
}

/// A request on which two generations did not decide alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// When.
    pub at: Timestamp,
    /// Where it came from.
    pub source: String,
    /// What was decided.
    pub active: String,
    /// What the candidate would have.
    pub candidate: String,
    /// The request, but for what `[records]` masks.
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
                    "generation {} is in the shadow at the seat `{seat}`, and no request has come since: ask again later",
                    candidate.number
                ),
                None => format!(
                    "nothing has been tried in the shadow at the seat `{seat}`: policy.shadow begins it"
                ),
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
            "What the shadowed generation decides otherwise",
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
