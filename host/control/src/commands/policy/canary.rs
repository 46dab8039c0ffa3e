//! `policy.canary`: start a canary trial.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_policy::{Share, Trial};
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::Deserialize;

use super::role::{Chosen, Role};
use super::{
    CHANGES, Changed, Dispatch, FromCall, Patience, Procedure, SHARE, WAIT, expect, generation,
    share,
};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Given, Operation, Routes, Segments, answer};

/// `policy.canary`.
#[derive(Debug)]
pub(crate) struct Canary {
    pub(crate) seat: String,
    pub(crate) generation: u64,
    pub(crate) share: Share,
    /// How long to wait for the hosts.
    pub(crate) patience: Patience,
}

/// The query that selects a generation and a share of the dialogs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct CanaryQuery {
    /// Number of a generation that the host has
    #[schemars(with = "Option<u64>", extend("maximum" = u64::MAX))]
    generation: Option<String>,
    /// Share of the dialogs, by a stable hash of Call-ID: for example 5%, with at most two decimal places
    #[schemars(extend("pattern" = SHARE))]
    share: Option<String>,
    /// How long to wait until all hosts on the same database use it, for example 10s (default: 5s; at most 60s)
    #[schemars(extend("pattern" = WAIT))]
    wait: Option<String>,
}

impl FromCall for Canary {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let [seat, number, text] = expect(call, ["seat", "generation", "share"])?;
        let share = share(&text)?;
        let generation = generation(&number)?;
        Ok(Self {
            seat,
            generation,
            share,
            patience: Patience::default(),
        })
    }
}

impl Procedure for Canary {
    type Reply = Changed;

    const NEEDS: TokenRole = TokenRole::Ship;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    fn subject(&self) -> Option<String> {
        Some(format!("generation {}, {}", self.generation, self.share))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Changed, Fault> {
        let Self {
            seat,
            generation,
            share,
            patience,
        } = self;
        let role = Role::Candidate(Trial::Canary(share));
        let chosen = Chosen {
            seat,
            generation,
            patience,
        };
        chosen.give(role, control, caller).await
    }
}

impl Canary {
    /// `POST /v1/policies/{seat}/canary`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<Changed>(
            Method::POST,
            "/v1/policies/{seat}/canary",
            "canaryPolicy",
            "Start a canary trial, in which a generation decides on a share of the dialogs",
        );
        let post = post
            .query::<CanaryQuery>(&["generation", "share"])
            .answers(200, "The generation is in a canary trial");
        routes.on(post.refuses(CHANGES), canary)
    }
}

async fn canary(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<CanaryQuery>,
) -> Answer {
    let canary = Canary {
        seat,
        share: share(&query.share.unwrap_or_default())?,
        generation: generation(&query.generation.unwrap_or_default())?,
        patience: Patience::of(query.wait.as_deref())?,
    };
    answer(canary.dispatch(&control, &caller).await)
}
