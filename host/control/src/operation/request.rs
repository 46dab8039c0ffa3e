//! Reading of requests, and the responses to those that are malformed.

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use portcullis_rpc::Fault;
use serde::de::DeserializeOwned;
use serde_json::Value;

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

/// The largest integer up to which every integer is a floating-point number.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

/// Reads a body in JSON.
///
/// # Errors
/// 400 if it is something else, 422 for an integer that is too large for any type, or what [`whole`] returns.
pub(crate) async fn json_body<T: DeserializeOwned>(body: Body) -> Result<T, Fault> {
    let bytes = whole(body, MOST_JSON).await;
    let bytes =
        bytes.map_err(|(status, text)| Fault::new(status.as_u16().into(), text.trim_end()))?;
    serde_json::from_slice(&bytes).or_else(|error| {
        let Ok(value) = serde_json::from_slice(&bytes).map(with_integers) else {
            return Err(Fault::new(400, error.to_string()));
        };
        let code = if has_huge_integer(&value) { 422 } else { 400 };
        // The first error says where it is.
        serde_json::from_value(value).map_err(|_| Fault::new(code, error.to_string()))
    })
}

/// Whether a number is an integer that no type of this host can hold.
fn has_huge_integer(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            (number.as_f64()).is_some_and(|float| number.is_f64() && float.fract() == 0.0)
        }
        Value::Array(values) => values.iter().any(has_huge_integer),
        Value::Object(members) => members.values().any(has_huge_integer),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// Numbers like 5.0 as integers, which they are in JSON Schema.
fn with_integers(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| {
                number.is_f64() && float.fract() == 0.0 && float.abs() <= MOST_EXACT
            });
            match whole {
                Some(float) => Value::from(float as i64),
                None => Value::Number(number),
            }
        }
        Value::Array(values) => values.into_iter().map(with_integers).collect(),
        Value::Object(members) => {
            let members = members.into_iter();
            members
                .map(|(name, value)| (name, with_integers(value)))
                .collect()
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn whole_numbers_are_integers() {
        let read = async |text: &str| json_body::<Vec<i64>>(Body::from(text.to_owned())).await;
        assert_eq!(read("[5, 5.0, -1e3]").await.unwrap(), [5, 5, -1000]);
        assert_eq!(read("[1.5]").await.unwrap_err().code, 400);
        assert_eq!(read("[1e300]").await.unwrap_err().code, 422);
        assert_eq!(
            with_integers(json!({"a": [1.0, 1.5, "1.0"]})),
            json!({"a": [1, 1.5, "1.0"]})
        );
    }
}
