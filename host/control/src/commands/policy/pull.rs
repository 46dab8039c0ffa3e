//! The file of a generation, over HTTP.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{Method, header};
use axum::response::IntoResponse;
use portcullis_config::TokenRole;
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use tokio::sync::OwnedSemaphorePermit;

use super::{WASM, fault};
use crate::Control;
use crate::audit::About;
use crate::caller::Caller;
use crate::commands::shown_to;
use crate::operation::{Answer, Api, Operation, Routes, Segments};
use crate::room::Purpose;

/// A policy: a WebAssembly module or component.
#[derive(JsonSchema)]
#[schemars(inline, extend("format" = "binary"))]
#[expect(dead_code, reason = "its description is used, and never a value")]
struct Binary(String);

/// A policy that is sent, with the memory reserved for it until then.
struct Sent {
    bytes: Arc<[u8]>,
    _room: OwnedSemaphorePermit,
}

/// `GET /v1/policies/{seat}/generations/{generation}`.
pub(crate) fn operation(routes: Routes) -> Routes {
    let get = Operation::new::<Binary>(
        Method::GET,
        "/v1/policies/{seat}/generations/{generation}",
        "pullPolicy",
        "Download the file of a generation",
    );
    let get = get.answers(200, "The file").sends(WASM);
    routes.on(get.refuses(&[404, 503]), pull)
}

async fn pull(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments((seat, number)): Segments<(String, String)>,
) -> Answer {
    let about = About {
        seat: Some(seat.clone()),
        subject: Some(match number.as_str() {
            "active" => "the active generation".to_owned(),
            number => format!("generation {number}"),
        }),
    };
    let noted = control.audit.begin(&caller, "policy.pull", about);
    let pulled = match caller.may(TokenRole::Ship) {
        Ok(()) => file(&control, &caller, &seat, &number).await,
        Err(fault) => Err(fault),
    };
    // The audit shows a tenant its own actions.
    let pulled = pulled.map_err(|fault| shown_to(&caller, fault));
    noted.end(pulled.as_ref().err());
    Ok(([(header::CONTENT_TYPE, WASM)], pulled?).into_response())
}

async fn file(
    control: &Control,
    caller: &Caller,
    seat: &str,
    number: &str,
) -> Result<Bytes, Fault> {
    let number = match number {
        "active" => None,
        digits => match digits.parse() {
            Ok(number) => Some(number),
            Err(_) => {
                let text = format!("`{digits}` is neither the number of a generation nor `active`");
                return Err(Fault::new(400, text));
            }
        },
    };
    let most = control.shared.config.policy.seat.limits.module_bytes;
    let room = control
        .room
        .acquire(caller, Purpose::Transfer, most)
        .await?;
    let pulled = control.registry.deployments().pull(seat, number).await;
    let bytes = pulled.map_err(|error| fault(&error))?;
    Ok(Bytes::from_owner(Sent { bytes, _room: room }))
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
