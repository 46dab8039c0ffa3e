//! `policy.activate`: activate a generation.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_rpc::{Call, Fault};

use super::{
    CHANGES, Change, Changed, Dispatch, FromCall, GenerationQuery, Procedure, expect, fault,
    generation,
};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Given, Operation, Routes, Segments, answer};

/// `policy.activate`.
#[derive(Debug)]
pub(crate) struct Activate {
    pub(crate) seat: String,
    pub(crate) generation: u64,
}

impl FromCall for Activate {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let [seat, number] = expect(call, ["seat", "generation"])?;
        let generation = generation(&number)?;
        Ok(Self { seat, generation })
    }
}

impl Procedure for Activate {
    type Reply = Changed;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Changed, Fault> {
        let by = caller.to_string();
        let activated = control
            .registry
            .deployments()
            .activate(&self.seat, self.generation, &by);
        let activated = activated.await.map_err(|error| fault(&error))?;
        Ok(Changed::new(control, Change::Activated, &activated).await)
    }
}

impl Activate {
    /// `POST /v1/policies/{seat}/activate`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<Changed>(
            Method::POST,
            "/v1/policies/{seat}/activate",
            "activatePolicy",
            "Activate a generation",
        );
        let post = post
            .query::<GenerationQuery>(&["generation"])
            .answers(200, "The generation is active");
        routes.on(post.refuses(CHANGES), activate)
    }
}

async fn activate(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<GenerationQuery>,
) -> Answer {
    let generation = generation(&query.generation.unwrap_or_default())?;
    answer(
        Activate { seat, generation }
            .dispatch(&control, &caller)
            .await,
    )
}
