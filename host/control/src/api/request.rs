//! What handlers read of a request, and what they answer if it can't be read.

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use portcullis_rpc::Fault;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use super::openapi::Refused;
use crate::Control;
use crate::caller::Caller;
use crate::http_server::whole;

/// The largest section of a tenant, in bytes.
const MOST_TENANT: usize = 256 << 10;

/// What the path names.
pub(super) struct Segments<T>(pub(super) T);

/// What the query says.
pub(super) struct Given<T>(pub(super) T);

/// A fault as an answer of HTTP.
pub(super) struct Refusal(Fault);

impl<T, S> FromRequestParts<S> for Segments<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(named)) => Ok(Self(named)),
            Err(error) => Err(Fault::new(400, error.body_text()).into()),
        }
    }
}

impl<T, S> FromRequestParts<S> for Given<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(given)) => Ok(Self(given)),
            Err(error) => Err(Fault::new(400, error.body_text()).into()),
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.http_status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        refusal(status, self.0.message)
    }
}

/// The answer to a request below `/v1` that is refused.
pub(crate) fn refusal(status: StatusCode, error: impl Into<String>) -> Response {
    let error = error.into();
    (status, axum::Json(Refused { error })).into_response()
}

/// The body of a push, and the room that it takes of all bodies together for as long as it is needed.
pub(super) async fn policy_body(
    control: &Control,
    caller: &Caller,
    body: Body,
    most: usize,
) -> Result<(Bytes, OwnedSemaphorePermit), Fault> {
    let told = body.size_hint().exact();
    let size = told.map_or(most, |told| usize::try_from(told).unwrap_or(usize::MAX));
    if size > most {
        let text = format!("the policy has {size} bytes, {most} at most");
        return Err(Fault::new(413, text));
    }
    let room = control.room.acquire(caller, size).await?;
    match whole(body, most).await {
        Ok(bytes) => Ok((bytes, room)),
        Err((status, text)) => Err(Fault::new(status.as_u16().into(), text.trim_end())),
    }
}

/// The section of a tenant.
pub(super) async fn text_body(body: Body) -> Result<String, Fault> {
    let whole = whole(body, MOST_TENANT).await;
    let bytes =
        whole.map_err(|(status, text)| Fault::new(status.as_u16().into(), text.trim_end()))?;
    String::from_utf8(bytes.into())
        .map_err(|_| Fault::new(400, "the tenant's section is not UTF-8"))
}
