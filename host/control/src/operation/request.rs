//! Reading of requests, and the responses to those that are malformed.

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use portcullis_rpc::Fault;
use serde::de::DeserializeOwned;

use super::problem::refusal;
use crate::http_server::whole;

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

/// The number of results that a query asks for.
///
/// # Errors
/// 400 if it is out of range.
pub(crate) fn limit(
    name: &str,
    given: Option<usize>,
    default: usize,
    most: usize,
) -> Result<usize, Fault> {
    match given {
        None => Ok(default),
        Some(given) if (1..=most).contains(&given) => Ok(given),
        Some(given) => Err(Fault::new(
            400,
            format!("{name}: {given} is not 1 to {most}"),
        )),
    }
}

/// The largest JSON body in bytes.
const MOST_JSON: usize = 64 << 10;

/// Reads a body in JSON.
///
/// # Errors
/// 400 if it is something else, or what [`whole`] returns.
pub(crate) async fn json_body<T: DeserializeOwned>(body: Body) -> Result<T, Fault> {
    let bytes = whole(body, MOST_JSON).await;
    let bytes =
        bytes.map_err(|(status, text)| Fault::new(status.as_u16().into(), text.trim_end()))?;
    serde_json::from_slice(&bytes).map_err(|error| Fault::new(400, error.to_string()))
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
