//! Reading of requests, and the responses to those that are malformed.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use portcullis_rpc::Fault;
use serde::de::DeserializeOwned;

use super::description::Refused;

/// The parameters of the path.
pub(crate) struct Segments<T>(pub(crate) T);

/// The parameters of the query.
pub(crate) struct Given<T>(pub(crate) T);

/// A fault as an HTTP response.
pub(crate) struct Refusal(Fault);

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

/// Returns the response to a request below `/v1` that is refused.
pub(crate) fn refusal(status: StatusCode, error: impl Into<String>) -> Response {
    let error = error.into();
    (status, axum::Json(Refused { error })).into_response()
}
