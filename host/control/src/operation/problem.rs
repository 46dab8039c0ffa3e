//! Refusals as problem details (RFC 9457).

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The media type of problem details.
pub(super) const PROBLEM: &str = "application/problem+json";

/// After how many seconds a client may try again that was refused because of a limit, or because something is not available.
const AFTER_LIMIT: HeaderValue = HeaderValue::from_static("2");
const AFTER_OUTAGE: HeaderValue = HeaderValue::from_static("5");

/// Why a request was refused, and how to correct it (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The reason phrase of the status.
    pub title: String,
    /// The status.
    pub status: u16,
    /// What is wrong, and how to correct it.
    pub detail: String,
    /// The path of the request.
    pub instance: String,
    /// The same text as `detail`.
    pub error: String,
}

/// What is wrong, as an extension of a response. The response becomes a problem where the path of the request is known.
#[derive(Clone, Debug)]
struct Detail(String);

/// Returns the response to a request that is refused.
pub(crate) fn refusal(status: StatusCode, error: impl Into<String>) -> Response {
    let mut response = status.into_response();
    response.extensions_mut().insert(Detail(error.into()));
    response
}

/// Writes refusals as problems, and those of the router below `/v1`: a path or a method that does not exist.
pub(crate) async fn write_problems(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let status = response.status();
    let detail = match response.extensions_mut().remove::<Detail>() {
        Some(Detail(detail)) => detail,
        None if !path.starts_with("/v1/") => return response,
        None => match status {
            StatusCode::NOT_FOUND => {
                "there is no such path: GET /v1/openapi.json lists them".to_owned()
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                "this path does not have this method: GET /v1/openapi.json lists them".to_owned()
            }
            _ => return response,
        },
    };
    let problem = Problem {
        kind: "about:blank".to_owned(),
        title: status.canonical_reason().unwrap_or_default().to_owned(),
        status: status.as_u16(),
        error: detail.clone(),
        detail,
        instance: path,
    };
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let media = HeaderValue::from_static(PROBLEM);
    parts.headers.insert(header::CONTENT_TYPE, media);
    let again = match status {
        StatusCode::TOO_MANY_REQUESTS => Some(AFTER_LIMIT),
        StatusCode::SERVICE_UNAVAILABLE => Some(AFTER_OUTAGE),
        _ => None,
    };
    if let Some(again) = again {
        parts.headers.entry(header::RETRY_AFTER).or_insert(again);
    }
    // Texts and a number: serialising them cannot fail.
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    Response::from_parts(parts, Body::from(body))
}
