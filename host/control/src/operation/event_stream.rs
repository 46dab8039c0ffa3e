//! Responses of server-sent events (HTML Living Standard).

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};

/// The media type of server-sent events.
pub(crate) const EVENTS: &str = "text/event-stream";

/// Returns a response that sends these events, already formatted, as long as there are any and the client reads.
pub(crate) fn event_stream(events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let head = [
        (header::CONTENT_TYPE, EVENTS),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let events = events.map(Ok::<_, Infallible>);
    (head, Body::from_stream(events)).into_response()
}
