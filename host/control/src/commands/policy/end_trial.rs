//! `policy.endTrial`: end the trial of a candidate.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault};

use super::{
    CHANGES, Change, Changed, Dispatch, FromCall, Patience, Procedure, WaitQuery, expect, fault,
};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Given, Operation, Routes, Segments, answer};

/// `policy.endTrial`.
#[derive(Debug)]
pub(crate) struct EndTrial {
    pub(crate) seat: String,
    /// How long to wait for the hosts.
    pub(crate) patience: Patience,
}

impl FromCall for EndTrial {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let [seat] = expect(call, ["seat"])?;
        let patience = Patience::default();
        Ok(Self { seat, patience })
    }
}

impl Procedure for EndTrial {
    type Reply = Changed;

    const NEEDS: TokenRole = TokenRole::Ship;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Changed, Fault> {
        let by = caller.to_string();
        let ended = control
            .registry
            .deployments()
            .end_trial(&self.seat, &by)
            .await;
        match ended.map_err(|error| fault(&error))? {
            Some(ended) => {
                let of = (self.seat.as_str(), &*ended);
                Ok(Changed::new(control, caller, Change::TrialEnded, of, self.patience).await)
            }
            None => Err(Fault::new(
                404,
                format!("no trial at the seat `{}`", self.seat),
            )),
        }
    }
}

impl EndTrial {
    /// `DELETE /v1/policies/{seat}/candidate`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let delete = Operation::new::<Changed>(
            Method::DELETE,
            "/v1/policies/{seat}/candidate",
            "endTrial",
            "End the trial of the candidate",
        );
        let delete = delete.query::<WaitQuery>(&[]);
        routes.on(
            delete.answers(200, "The trial has ended").refuses(CHANGES),
            end_trial,
        )
    }
}

async fn end_trial(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<WaitQuery>,
) -> Answer {
    let patience = Patience::of(query.wait.as_deref())?;
    answer(
        EndTrial { seat, patience }
            .dispatch(&control, &caller)
            .await,
    )
}
