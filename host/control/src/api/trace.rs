//! `GET /v1/trace`: how messages are handled, as it happens, one JSON object per line.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use portcullis_dataplane::trace::{Filter, Following, Next};
use schemars::JsonSchema;
use serde_json::Value as Json;

use crate::Control;
use crate::operation::{IPV4_NETWORK, IPV6_NETWORK, Operation, Routes, refusal};

/// The query as it is described; [`Filter`] parses it.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "its description is used, and never a value")]
struct TraceQuery {
    /// Source address or network of the message
    #[schemars(extend("anyOf" = [
        { "format": "ipv4" },
        { "format": "ipv6" },
        { "pattern": IPV4_NETWORK },
        { "pattern": IPV6_NETWORK },
    ]))]
    source: Option<String>,
    /// Call-ID
    call_id: Option<String>,
    /// Method; for responses, that of CSeq
    method: Option<String>,
    /// Tenant; default for the operator
    tenant: Option<String>,
    /// User part of From
    from: Option<String>,
    /// User part of To
    to: Option<String>,
    /// How the message was handled
    #[schemars(extend("enum" = ["relayed", "returned", "answered", "rejected", "absorbed", "dropped", "undelivered"]))]
    outcome: Option<String>,
    /// Status code of responses: 401, or 4xx for a class
    #[schemars(extend("pattern" = "^[1-6]([0-9]{2}|xx)$"))]
    code: Option<String>,
    /// Maximum number of messages per second, 1 to 2000 (default: 200); further messages are counted
    #[schemars(extend("minimum" = 1, "maximum" = 2000))]
    rate: Option<u32>,
}

/// Interval after which an empty line is sent if there are no messages. Writing it detects clients that are gone.
const SILENCE: Duration = Duration::from_secs(5);

/// `GET /v1/trace`.
pub(super) fn operation(routes: Routes) -> Routes {
    let get = Operation::new::<Json>(Method::GET, "/v1/trace", "trace", "Trace messages");
    let get = get
        .query::<TraceQuery>(&[])
        .sends("application/x-ndjson")
        .refuses(&[429]);
    let get = get.answers(200, "One JSON object per line as long as the connection is open; an empty line every 5 seconds while there are no messages, {\"left_out\": N} for messages above the rate");
    routes.on(get, trace)
}

async fn trace(State(control): State<Arc<Control>>, uri: Uri) -> Response {
    let following = match follow(&control, &uri) {
        Ok(following) => following,
        Err((status, error)) => return refusal(status, error),
    };
    let lines = stream::unfold(following, |mut following| async {
        let line = match following.next(SILENCE).await {
            Next::Line(line) => line,
            Next::LeftOut(count) => Bytes::from(format!("{{\"left_out\":{count}}}\n")),
            Next::Silence => Bytes::from_static(b"\n"),
            Next::End => return None,
        };
        Some((Ok::<_, Infallible>(line), following))
    });
    let json_lines = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (json_lines, Body::from_stream(lines)).into_response()
}

fn follow(control: &Arc<Control>, uri: &Uri) -> Result<Following, (StatusCode, String)> {
    let bad = |error: String| (StatusCode::BAD_REQUEST, error);
    let Query(filter) =
        Query::<Filter>::try_from_uri(uri).map_err(|error| bad(error.body_text()))?;
    let filter = filter.read().map_err(|error| bad(error.to_string()))?;
    Following::begin(control.shared.clone(), filter)
        .map_err(|error| (StatusCode::TOO_MANY_REQUESTS, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every member of the description is one of [`Filter`], and so is every outcome.
    #[test]
    fn the_description_of_the_query_matches_its_parser() {
        let reads = |query: &str| {
            let uri = format!("/v1/trace?{query}").parse().unwrap();
            Query::<Filter>::try_from_uri(&uri).is_ok()
        };
        let schema = schemars::schema_for!(TraceQuery);
        let members = schema.get("properties").unwrap().as_object().unwrap();
        assert_eq!(members.len(), 9);
        for name in members.keys().filter(|name| *name != "outcome") {
            assert!(reads(&format!("{name}=1")), "{name}");
        }
        assert!(!reads("other=1"));
        let outcomes = members["outcome"]["enum"].as_array().unwrap();
        for outcome in outcomes {
            let outcome = outcome.as_str().unwrap();
            assert!(reads(&format!("outcome={outcome}")), "{outcome}");
        }
    }
}
