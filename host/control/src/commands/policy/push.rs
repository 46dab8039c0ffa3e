//! `policy.push`, over HTTP: push a policy to a seat.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use portcullis_config::TokenRole;
use portcullis_policy::{Share, Trial};
use portcullis_rollout::{Arrival, Reserved};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::super::reply::milliseconds;
use super::{
    Dispatch, FleetReach, Patience, Procedure, SEAT, SHARE, WAIT, WASM, digest, fault, share,
};
use crate::Control;
use crate::audit::About;
use crate::body::read_body;
use crate::caller::Caller;
use crate::commands::shown_to;
use crate::conditions::Condition;
use crate::operation::{Answer, Api, Given, Operation, Routes, Segments, answer};
use crate::room::Purpose;

/// A policy that was received, with the memory reserved for it until it is loaded.
pub(crate) struct Push {
    pub(crate) seat: String,
    pub(crate) place: Reserved,
    pub(crate) bytes: Vec<u8>,
    pub(crate) room: OwnedSemaphorePermit,
    /// Name in logs and lists.
    pub(crate) name: String,
    pub(crate) note: String,
    /// Ed25519 over the file, in Base64; empty if there is none.
    pub(crate) signature: String,
    pub(crate) arrival: Arrival,
    /// How long to wait for the hosts.
    pub(crate) patience: Patience,
}

/// The query of a push.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PushQuery {
    /// Name in logs and lists (default: policy.wasm)
    name: Option<String>,
    /// Author of the push
    author: Option<String>,
    /// Note on the changes
    note: Option<String>,
    /// Ed25519 signature of the file, in Base64, if the seat has signers
    signature: Option<String>,
    /// Role of the new generation (default: keep)
    #[schemars(extend("enum" = ["keep", "activate", "shadow", "canary"]))]
    arrival: Option<String>,
    /// With arrival=canary: a share of the dialogs, for example 5%
    #[schemars(extend("pattern" = SHARE))]
    share: Option<String>,
    /// How long to wait until all hosts on the same database use it, for example 10s (default: 5s; at most 60s)
    #[schemars(extend("pattern" = WAIT))]
    wait: Option<String>,
}

impl PushQuery {
    /// The query of a policy that is activated.
    pub(super) fn activating(
        name: Option<String>,
        note: Option<String>,
        signature: Option<String>,
    ) -> Self {
        Self {
            name,
            note,
            signature,
            arrival: Some("activate".to_owned()),
            ..Self::default()
        }
    }
}

/// The reply to a push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pushed {
    /// The seat.
    pub seat: String,
    /// Number of the generation.
    pub generation: u64,
    /// Digest of the file.
    pub digest: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Duration of the load in milliseconds; null for a tenant.
    pub load_ms: Option<u64>,
    /// Role of the generation now.
    pub arrival: PushedAs,
    /// Whether all workers of this host use it.
    pub live_on_all_workers: bool,
    /// On which hosts of the same database it is in effect; null if none announces itself, and for a generation without a role.
    #[serde(default)]
    pub hosts: Option<FleetReach>,
    /// A warning; null if there is none.
    pub warning: Option<String>,
}

/// Role of a pushed generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PushedAs {
    /// None.
    Kept,
    /// Active.
    Active,
    /// In a shadow trial.
    Shadow,
    /// In a canary trial.
    Canary,
}

impl Procedure for Push {
    type Reply = Pushed;

    const NEEDS: TokenRole = TokenRole::Ship;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    fn subject(&self) -> Option<String> {
        Some(self.name.clone())
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Pushed, Fault> {
        let (arrival, patience) = (self.arrival, self.patience);
        let push = portcullis_rollout::Push {
            name: self.name,
            bytes: self.bytes,
            author: caller.to_string(),
            note: self.note,
            signature: self.signature,
            is_tenants: !caller.is_operator(),
        };
        let pushed = control
            .registry
            .deployments()
            .push_to(self.place, push, arrival)
            .await;
        drop(self.room);
        let generation = pushed.map_err(|error| fault(&error))?;
        let policy = &generation.policy;
        let live_on_all_workers = control.is_live().await;
        // Other hosts fetch a generation when it gets a role.
        let (hosts, unknown) = match arrival {
            Arrival::Keep => (None, None),
            Arrival::Activate | Arrival::Try(_) => {
                patience.reach(control, caller, &self.seat).await
            }
        };
        let failure = policy.trial_failure();
        let warning = failure.map(|failure| format!("it fails on a plain OPTIONS: {failure}"));
        // The duration would disclose to a tenant whether another tenant has the same file.
        let load_ms = caller
            .is_operator()
            .then(|| milliseconds(policy.load_time()));
        Ok(Pushed {
            seat: self.seat,
            generation: generation.number,
            digest: digest(policy.digest()),
            bytes: policy.inspection().size as u64,
            load_ms,
            arrival: arrival.into(),
            live_on_all_workers,
            hosts,
            warning: warning.or_else(|| control.unstored()).or(unknown),
        })
    }
}

impl Push {
    /// `POST /v1/policies/{seat}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<Pushed>(
            Method::POST,
            SEAT,
            "pushPolicy",
            "Push a policy, which is validated, compiled and tested before it is used",
        );
        let post = post.query::<PushQuery>(&[]).answers(
            201,
            "The generation was created; with arrival=activate it is active",
        );
        let post = post.body(
            WASM,
            json!({"type": "string", "format": "binary"}),
            "A WebAssembly module or component that implements the contract",
        );
        routes.on(
            post.refuses(&[404, 408, 409, 413, 415, 422, 429, 500, 503]),
            push,
        )
    }
}

/// Receives a policy. Its bytes are read when the seat has been reserved and there is memory for them.
async fn push(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    condition: Condition,
    Segments(seat): Segments<String>,
    Given(query): Given<PushQuery>,
    body: Body,
) -> Answer {
    let caller = caller.called(query.author.clone());
    let push = receive(&control, &caller, seat, query, body).await?;
    let _turn = condition.hold(&control).await?;
    let pushed = answer(push.dispatch(&control, &caller).await)?;
    Ok((StatusCode::CREATED, pushed).into_response())
}

/// Reads the bytes, if the caller may push to the seat. The audit has a push that is not received; the command itself notes how another one ends.
pub(super) async fn receive(
    control: &Control,
    caller: &Caller,
    seat: String,
    query: PushQuery,
    body: Body,
) -> Result<Push, Fault> {
    let about = About {
        seat: Some(seat.clone()),
        subject: query.name.clone(),
    };
    let received = read(control, caller, seat, query, body).await;
    received.inspect_err(|fault| {
        control
            .audit
            .note(caller, "policy.push", about, Some(fault));
    })
}

async fn read(
    control: &Control,
    caller: &Caller,
    seat: String,
    query: PushQuery,
    body: Body,
) -> Result<Push, Fault> {
    // Before the seat is reserved.
    caller.may(Push::NEEDS)?;
    let arrival = arrival(query.arrival.as_deref(), query.share.as_deref())?;
    let patience = Patience::of(query.wait.as_deref())?;
    let place = control
        .registry
        .deployments()
        .reserve(&seat, !caller.is_operator());
    let place = place.map_err(|error| shown_to(caller, fault(&error)))?;
    let (bytes, room) =
        read_body(&control.room, caller, Purpose::Transfer, body, place.most()).await?;
    Ok(Push {
        seat,
        place,
        bytes: bytes.into(),
        room,
        name: query.name.unwrap_or_else(|| "policy.wasm".to_owned()),
        note: query.note.unwrap_or_default(),
        // A `+` of Base64 that was not escaped is parsed as a space.
        signature: query.signature.unwrap_or_default().replace(' ', "+"),
        arrival,
        patience,
    })
}

impl std::fmt::Debug for Push {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Push")
            .field("seat", &self.seat)
            .field("name", &self.name)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl From<Arrival> for PushedAs {
    fn from(arrival: Arrival) -> Self {
        match arrival {
            Arrival::Keep => Self::Kept,
            Arrival::Activate => Self::Active,
            Arrival::Try(Trial::Shadow) => Self::Shadow,
            Arrival::Try(Trial::Canary(_)) => Self::Canary,
        }
    }
}

impl std::fmt::Display for PushedAs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::Active => "active",
            Self::Shadow => "shadow",
            Self::Canary => "canary",
        })
    }
}

/// Parses the role of a pushed policy.
///
/// # Errors
/// 400 if the word is unknown, or does not match the share.
fn arrival(word: Option<&str>, of: Option<&str>) -> Result<Arrival, Fault> {
    let of: Option<Share> = of.map(share).transpose()?;
    match (word, of) {
        (None | Some("keep"), None) => Ok(Arrival::Keep),
        (Some("activate"), None) => Ok(Arrival::Activate),
        (Some("shadow"), None) => Ok(Arrival::Try(Trial::Shadow)),
        (Some("canary"), Some(share)) => Ok(Arrival::Try(Trial::Canary(share))),
        (Some("canary"), None) => Err(Fault::new(
            400,
            "a canary needs a share, for example share=5%",
        )),
        (None | Some("keep" | "activate" | "shadow"), Some(_)) => {
            Err(Fault::new(400, "a share is only valid with arrival=canary"))
        }
        (Some(other), _) => {
            let text =
                format!("`{other}` is not an arrival: write keep, activate, shadow or canary");
            Err(Fault::new(400, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_parsed() {
        let canary = Arrival::Try(Trial::Canary(Share::parse("5%").unwrap()));
        for (word, share, expected) in [
            (None, None, Arrival::Keep),
            (Some("activate"), None, Arrival::Activate),
            (Some("shadow"), None, Arrival::Try(Trial::Shadow)),
            (Some("canary"), Some("5%"), canary),
        ] {
            assert_eq!(arrival(word, share).unwrap(), expected);
        }
        for (word, share) in [
            (Some("canary"), None),
            (Some("canary"), Some("5")),
            (Some("activate"), Some("5%")),
            (Some("now"), None),
        ] {
            assert!(arrival(word, share).is_err(), "{word:?} {share:?}");
        }
    }
}
