//! What the commands have in common that give a generation another role.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_policy::Trial;
use portcullis_rollout::ShipError;
use portcullis_rpc::{Call, Fault};

use super::{
    CHANGES, Change, Changed, Dispatch, GenerationQuery, Patience, expect, fault, generation,
};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Given, Operation, Routes, Segments, answer};

/// A generation of a seat.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) seat: String,
    pub(crate) generation: u64,
    /// How long to wait for the hosts.
    pub(crate) patience: Patience,
}

/// The role that a generation gets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Active,
    Candidate(Trial),
}

/// What differs between the HTTP operations.
pub(super) struct Words {
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) done: &'static str,
}

impl Chosen {
    /// Parses the parameters of a call.
    ///
    /// # Errors
    /// 400 if they are invalid.
    pub(super) fn from_call(call: &Call) -> Result<Self, Fault> {
        let [seat, number] = expect(call, ["seat", "generation"])?;
        let generation = generation(&number)?;
        Ok(Self {
            seat,
            generation,
            patience: Patience::default(),
        })
    }

    /// Returns what an action concerns, for the audit.
    pub(super) fn subject(&self) -> String {
        format!("generation {}", self.generation)
    }

    /// Gives the generation this role.
    pub(super) async fn give(
        &self,
        role: Role,
        control: &Control,
        caller: &Caller,
    ) -> Result<Changed, Fault> {
        let Self {
            seat,
            generation,
            patience,
        } = self;
        let by = caller.to_string();
        let deployments = control.registry.deployments();
        let (change, changed) = match role {
            Role::Active => (
                Change::Activated,
                deployments.activate(seat, *generation, &by).await,
            ),
            Role::Candidate(trial) => (
                match trial {
                    Trial::Shadow => Change::Shadowing,
                    Trial::Canary(_) => Change::Canary,
                },
                deployments.try_out(seat, *generation, trial, &by).await,
            ),
        };
        let changed = changed.map_err(|error: ShipError| fault(&error))?;
        let of = (seat.as_str(), &*changed);
        Ok(Changed::new(control, caller, change, of, *patience).await)
    }
}

/// Adds the HTTP operation of a command whose only parameters are a seat and a generation.
pub(super) fn operation<C>(routes: Routes, words: &Words) -> Routes
where
    C: Dispatch + From<Chosen> + 'static,
{
    let post = Operation::new::<Changed>(Method::POST, words.path, words.id, words.summary);
    let post = post
        .query::<GenerationQuery>(&["generation"])
        .answers(200, words.done);
    routes.on(post.refuses(CHANGES), handle::<C>)
}

async fn handle<C: Dispatch + From<Chosen>>(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<GenerationQuery>,
) -> Answer {
    let command = C::from(Chosen {
        seat,
        generation: generation(&query.generation.unwrap_or_default())?,
        patience: Patience::of(query.wait.as_deref())?,
    });
    answer(command.dispatch(&control, &caller).await)
}
