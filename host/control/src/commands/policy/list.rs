//! `policy.list`: the generations of a seat.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_policy::{Generation, Lineup};
use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Timestamp;
use super::{CallStats, Dispatch, FromCall, Procedure, digest, fault, files_of, seat_or_default};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Operation, Routes, Segments, answer};

/// `policy.list`.
#[derive(Debug)]
pub(crate) struct ListGenerations {
    pub(crate) seat: String,
}

/// A generation of a seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GenerationStatus {
    /// Number.
    pub generation: u64,
    /// Role.
    pub role: Role,
    /// The trial of the candidate: `shadow`, or `canary` with its share; null for the others.
    #[serde(default)]
    pub trial: Option<String>,
    /// Name of the policy.
    pub name: String,
    /// Digest of the file.
    pub digest: String,
    /// Time of the load; absent if the generation is only stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded_at: Option<Timestamp>,
    /// Author of the push.
    pub author: Option<String>,
    /// Note of the author.
    pub note: Option<String>,
    /// Statistics of its calls; absent if the generation is only stored.
    #[serde(flatten)]
    pub stats: Option<CallStats>,
}

/// Role of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Its verdicts are carried out.
    Active,
    /// On trial.
    Candidate,
    /// Taken out of service.
    Failed,
    /// Active before; the fallback if the active generation fails.
    Previous,
    /// Compiled, in memory.
    Kept,
    /// In the database only.
    Stored,
}

impl FromCall for ListGenerations {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let seat = seat_or_default(call)?;
        Ok(Self { seat })
    }
}

impl Procedure for ListGenerations {
    type Reply = Vec<GenerationStatus>;

    const NEEDS: TokenRole = TokenRole::Read;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<Vec<GenerationStatus>, Fault> {
        let files = files_of(control, &self.seat)?;
        let slot = files.slot();
        let seat = &files.seat().name;
        let lineup = slot.lineup();
        let ready = slot.numbers();
        let loaded = ready.iter().filter_map(|&number| slot.generation(number));
        let loaded = loaded.map(|generation| {
            let origin = control
                .registry
                .deployments()
                .provenance(seat, generation.number);
            let (author, note) = origin.map(|origin| (origin.author, origin.note)).unzip();
            GenerationStatus {
                generation: generation.number,
                role: Role::of(lineup.as_deref(), &generation),
                trial: lineup
                    .as_deref()
                    .and_then(|lineup| lineup.candidate.as_ref())
                    .filter(|candidate| candidate.generation.number == generation.number)
                    .map(|candidate| candidate.trial.to_string()),
                name: generation.policy.name().to_owned(),
                digest: digest(generation.policy.digest()),
                loaded_at: Some(generation.loaded_at.into()),
                author,
                note,
                stats: Some(CallStats::of(&generation)),
            }
        });
        let mut all: Vec<_> = loaded.collect();
        let stored = control
            .registry
            .deployments()
            .stored_generations(seat)
            .await;
        let stored = stored.map_err(|error| fault(&error))?.into_iter();
        let stored = stored.filter(|found| !ready.contains(&found.number));
        all.extend(stored.map(|found| GenerationStatus {
            generation: found.number,
            role: Role::Stored,
            trial: None,
            name: found.name,
            digest: digest(found.digest),
            loaded_at: None,
            author: Some(found.author),
            note: Some(found.note),
            stats: None,
        }));
        all.sort_by_key(|generation| generation.generation);
        Ok(all)
    }
}

impl ListGenerations {
    /// `GET /v1/policies/{seat}/generations`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<Vec<GenerationStatus>>(
            Method::GET,
            "/v1/policies/{seat}/generations",
            "listGenerations",
            "List the generations of a seat",
        );
        routes.on(get.refuses(&[404, 503]), list)
    }
}

async fn list(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
) -> Answer {
    answer(ListGenerations { seat }.dispatch(&control, &caller).await)
}

impl Role {
    fn of(lineup: Option<&Lineup>, generation: &Generation) -> Self {
        let number = generation.number;
        let Some(lineup) = lineup else {
            return Self::Kept;
        };
        let is =
            |other: Option<&Arc<Generation>>| other.is_some_and(|other| other.number == number);
        match () {
            () if lineup.active.number == number => Self::Active,
            () if is(lineup.candidate.as_ref().map(|one| &one.generation)) => Self::Candidate,
            () if generation.is_condemned() => Self::Failed,
            () if is(lineup.fallback.as_ref()) => Self::Previous,
            () => Self::Kept,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Candidate => "candidate",
            Self::Failed => "failed",
            Self::Previous => "previous",
            Self::Kept => "kept",
            Self::Stored => "stored",
        })
    }
}
