//! `PUT /v1/policies/{seat}`: makes a policy the active one of a seat. A policy that is active already is not pushed again.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::push::{PushQuery, receive};
use super::status::{SeatStatus, Status};
use super::{Dispatch, SEAT, WASM};
use crate::Control;
use crate::caller::Caller;
use crate::conditions::Condition;
use crate::operation::{Answer, Api, Given, Operation, Routes, Segments, answer};

/// The query of a policy that is to be active.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct PutQuery {
    /// Name in logs and lists (default: policy.wasm)
    name: Option<String>,
    /// Author of the push
    author: Option<String>,
    /// Note on the changes
    note: Option<String>,
    /// Ed25519 signature of the file, in Base64, if the seat has signers
    signature: Option<String>,
}

/// Adds the operation.
pub(crate) fn operation(routes: Routes) -> Routes {
    let put = Operation::new::<SeatStatus>(
        Method::PUT,
        SEAT,
        "putPolicy",
        "Make a policy the active one of a seat, unless it is active already",
    );
    let put = put
        .query::<PutQuery>(&[])
        .answers(200, "The state of the seat, whose active policy it is");
    let put = put.body(
        WASM,
        json!({"type": "string", "format": "binary"}),
        "A WebAssembly module or component that implements the contract",
    );
    routes.on(
        put.refuses(&[404, 408, 409, 413, 415, 422, 429, 500, 503]),
        make_active,
    )
}

async fn make_active(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    condition: Condition,
    Segments(seat): Segments<String>,
    Given(query): Given<PutQuery>,
    body: Body,
) -> Answer {
    let caller = caller.called(query.author.clone());
    let query = PushQuery::activating(query.name, query.note, query.signature);
    let push = receive(&control, &caller, seat.clone(), query, body).await?;
    let _turn = condition.hold(&control).await?;
    let given = hex::encode(Sha256::digest(&push.bytes));
    if active_digest(&control, &seat).is_none_or(|active| active != given) {
        push.dispatch(&control, &caller).await?;
    }
    answer(Status { seat }.dispatch(&control, &caller).await)
}

/// The digest of the active policy of a seat.
fn active_digest(control: &Control, seat: &str) -> Option<String> {
    let files = control.registry.files(seat)?;
    let lineup = files.slot().lineup()?;
    Some(lineup.active.policy.digest().to_string())
}
