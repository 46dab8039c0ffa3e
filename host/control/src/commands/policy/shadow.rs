//! `policy.shadow`: start a shadow trial.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_policy::Trial;
use portcullis_rpc::{Call, Fault};

use super::{
    CHANGES, Change, Changed, Dispatch, FromCall, GenerationQuery, Procedure, expect, fault,
    generation,
};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Given, Operation, Routes, Segments, answer};

/// `policy.shadow`.
#[derive(Debug)]
pub(crate) struct Shadow {
    pub(crate) seat: String,
    pub(crate) generation: u64,
}

impl FromCall for Shadow {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let [seat, number] = expect(call, ["seat", "generation"])?;
        let generation = generation(&number)?;
        Ok(Self { seat, generation })
    }
}

impl Procedure for Shadow {
    type Reply = Changed;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Changed, Fault> {
        let by = caller.to_string();
        let registry = &control.registry;
        let tried = registry
            .deployments()
            .try_out(&self.seat, self.generation, Trial::Shadow, &by);
        let tried = tried.await.map_err(|error| fault(&error))?;
        Ok(Changed::new(control, Change::Shadowing, &tried).await)
    }
}

impl Shadow {
    /// `POST /v1/policies/{seat}/shadow`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<Changed>(
            Method::POST,
            "/v1/policies/{seat}/shadow",
            "shadowPolicy",
            "Start a shadow trial, in which a generation evaluates requests without effect",
        );
        let post = post
            .query::<GenerationQuery>(&["generation"])
            .answers(200, "The generation is in a shadow trial");
        routes.on(post.refuses(CHANGES), shadow)
    }
}

async fn shadow(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<GenerationQuery>,
) -> Answer {
    let generation = generation(&query.generation.unwrap_or_default())?;
    answer(
        Shadow { seat, generation }
            .dispatch(&control, &caller)
            .await,
    )
}
