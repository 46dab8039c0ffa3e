//! `policy.rollback`: activate the previous generation again, or another one.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault};

use super::{
    CHANGES, Change, Changed, Dispatch, FromCall, GenerationQuery, Patience, Procedure, fault,
    generation,
};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Given, Operation, Routes, Segments, answer};

/// `policy.rollback`.
#[derive(Debug)]
pub(crate) struct Rollback {
    pub(crate) seat: String,
    /// A generation other than the previous one.
    pub(crate) to: Option<u64>,
    /// How long to wait for the hosts.
    pub(crate) patience: Patience,
}

impl FromCall for Rollback {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let (seat, to) = match call.texts()?[..] {
            [seat] => (seat, None),
            [seat, number] => (seat, Some(generation(number)?)),
            _ => {
                return Err(Fault::new(
                    400,
                    "name a seat, and a generation unless it is the previous one",
                ));
            }
        };
        let seat = seat.to_owned();
        let patience = Patience::default();
        Ok(Self { seat, to, patience })
    }
}

impl Procedure for Rollback {
    type Reply = Changed;

    const NEEDS: TokenRole = TokenRole::Ship;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    fn subject(&self) -> Option<String> {
        self.to.map(|to| format!("generation {to}"))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Changed, Fault> {
        let by = caller.to_string();
        let back = control
            .registry
            .deployments()
            .roll_back(&self.seat, self.to, &by)
            .await;
        let back = back.map_err(|error| fault(&error))?;
        let of = (self.seat.as_str(), &*back);
        Ok(Changed::new(control, caller, Change::RolledBack, of, self.patience).await)
    }
}

impl Rollback {
    /// `POST /v1/policies/{seat}/rollback`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<Changed>(
            Method::POST,
            "/v1/policies/{seat}/rollback",
            "rollBackPolicy",
            "Activate the previous generation again, or another one",
        );
        let post = post
            .query::<GenerationQuery>(&[])
            .answers(200, "The generation is active");
        routes.on(post.refuses(CHANGES), roll_back)
    }
}

async fn roll_back(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<GenerationQuery>,
) -> Answer {
    let to = query.generation.as_deref().map(generation).transpose()?;
    let patience = Patience::of(query.wait.as_deref())?;
    let rollback = Rollback { seat, to, patience };
    answer(rollback.dispatch(&control, &caller).await)
}
