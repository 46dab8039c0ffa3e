//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a repeated POST, PUT or DELETE below `/v1` gets the response of the first
//! one, and is not executed again.
//!
//! Responses to successful requests are kept. The body of a repetition is compared by its digest, and never held in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::Control;
use crate::api;
use crate::caller::Caller;
use crate::operation::refusal;
use crate::repeats::{Begun, First, Found, MOST_BEGUN, Named};

/// The key of a request.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Marks a response as that of the first request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Longest key in bytes.
const LONGEST: usize = 255;

/// The largest response in bytes that is kept.
const LARGEST: usize = 16 << 10;

/// How long a client may take for the body of a repetition, or for what a handler has not read, and its largest size in bytes.
const BODY: Duration = Duration::from_secs(60);
const MOST_BODY: u64 = 64 << 20;

/// A body whose digest is made while it is read. What is not read is handed back.
struct Digested {
    body: Body,
    made: Arc<Mutex<Making>>,
}

/// The digest so far.
#[derive(Default)]
struct Making {
    hash: Sha256,
    is_whole: bool,
    /// What was not read of a body that has not failed.
    rest: Option<Body>,
    has_failed: bool,
}

/// Answers repetitions, and passes on all other requests.
pub(crate) async fn answer(
    State(control): State<Arc<Control>>,
    request: Request,
    next: Next,
) -> Response {
    let is_change = [Method::POST, Method::PUT, Method::DELETE].contains(request.method());
    // What does not exist is refused by the router, whatever its key.
    let path = request.extensions().get::<MatchedPath>();
    let exists = path.is_some_and(|path| api::has(request.method(), path.as_str()));
    if !is_change || !exists || !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    let Some(key) = key(request.headers()) else {
        let text = format!("Idempotency-Key: one key of 1 to {LONGEST} visible ASCII characters");
        return refusal(StatusCode::BAD_REQUEST, text);
    };
    let Some(caller) = request.extensions().get::<Caller>() else {
        return next.run(request).await;
    };
    let named = Named {
        caller: caller.identity(),
        key,
    };
    let line = line_of(&request);
    match control.repeats.find(named, Instant::now()) {
        Found::New(begun) => {
            // The request is executed to its end even if its client is gone, so that a repetition gets its response.
            let done = tokio::spawn(run(begun, line, request, next));
            done.await.unwrap_or_else(|error| {
                refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            })
        }
        Found::TooMany => {
            let text = format!(
                "{MOST_BEGUN} requests with an Idempotency-Key are in progress: try again later"
            );
            refusal(StatusCode::TOO_MANY_REQUESTS, text)
        }
        Found::InProgress => {
            let text = "a request with this Idempotency-Key is in progress: repeat it later";
            refusal(StatusCode::CONFLICT, text)
        }
        Found::Known(first) => again(&first, &line, request.into_body()).await,
    }
}

fn key(headers: &HeaderMap) -> Option<String> {
    let mut keys = headers.get_all(KEY).iter();
    let key = keys.next()?.to_str().ok()?;
    let fits =
        (1..=LONGEST).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    (fits && keys.next().is_none()).then(|| key.to_owned())
}

/// Executes the first request, and keeps its response if it has succeeded.
async fn run(begun: Begun, line: String, request: Request, next: Next) -> Response {
    let made = Arc::new(Mutex::new(Making {
        is_whole: request.body().is_end_stream(),
        ..Making::default()
    }));
    let request = request.map(|body| {
        let made = Arc::clone(&made);
        Body::new(Digested { body, made })
    });
    let response = next.run(request).await;
    let is_small = |size: u64| size <= LARGEST as u64;
    let is_kept =
        response.status().is_success() && response.body().size_hint().exact().is_some_and(is_small);
    if !is_kept {
        return response;
    }
    let making = std::mem::take(&mut *made.lock());
    let Ok(Some(body)) = timeout(BODY, making.finish()).await else {
        return response;
    };
    let (parts, response) = response.into_parts();
    let bytes = match to_bytes(response, LARGEST).await {
        Ok(bytes) => bytes,
        Err(error) => return refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    begun.keep(First {
        at: Instant::now(),
        request: line,
        body,
        status: parts.status,
        media: parts.headers.get(header::CONTENT_TYPE).cloned(),
        response: bytes.clone(),
    });
    Response::from_parts(parts, Body::from(bytes))
}

/// The response of the first request, if this one is the same.
async fn again(first: &First, line: &str, body: Body) -> Response {
    let body = match timeout(BODY, digest(body)).await {
        Ok(Some(digest)) => digest,
        Ok(None) => {
            let text = "the body is too large, or did not come whole";
            return refusal(StatusCode::BAD_REQUEST, text);
        }
        Err(_) => {
            let text = format!("the body did not come within {BODY:?}");
            return refusal(StatusCode::REQUEST_TIMEOUT, text);
        }
    };
    if line != first.request || body != first.body {
        let text = "another request has had this Idempotency-Key: use a new key for each request";
        return refusal(StatusCode::UNPROCESSABLE_ENTITY, text);
    }
    let mut response = Response::new(Body::from(first.response.clone()));
    *response.status_mut() = first.status;
    let headers = response.headers_mut();
    if let Some(media) = &first.media {
        headers.insert(header::CONTENT_TYPE, media.clone());
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// The digest of a body, whose bytes are dropped; `None` if it is too large or not whole.
async fn digest(body: Body) -> Option<[u8; 32]> {
    digest_from(Sha256::new(), body).await
}

/// The same for a body that has begun with what is in `hash`.
async fn digest_from(mut hash: Sha256, mut body: Body) -> Option<[u8; 32]> {
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        if let Some(bytes) = frame.ok()?.data_ref() {
            size += bytes.len() as u64;
            hash.update(bytes);
        }
        if size > MOST_BODY {
            return None;
        }
    }
    Some(hash.finalize().into())
}

impl Making {
    /// The digest of the whole body, whose rest is read; `None` if it is too large or not whole.
    async fn finish(self) -> Option<[u8; 32]> {
        match self.rest {
            _ if self.is_whole => Some(self.hash.finalize().into()),
            Some(rest) => digest_from(self.hash, rest).await,
            None => None,
        }
    }
}

impl HttpBody for Digested {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        let mut made = this.made.lock();
        match &frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    made.hash.update(bytes);
                }
                // A reader need not ask for another frame.
                made.is_whole = this.body.is_end_stream();
            }
            Some(Err(_)) => made.has_failed = true,
            None => made.is_whole = true,
        }
        drop(made);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Digested {
    fn drop(&mut self) {
        let mut made = self.made.lock();
        if !made.has_failed {
            made.rest = Some(std::mem::take(&mut self.body));
        }
    }
}

/// What makes two requests the same beside their bodies: with another condition, a request is another one.
fn line_of(request: &Request) -> String {
    let values = |name: HeaderName| -> Vec<_> { request.headers().get_all(name).iter().collect() };
    format!(
        "{} {} {:?} {:?}",
        request.method(),
        request.uri(),
        values(header::IF_MATCH),
        values(header::IF_NONE_MATCH)
    )
}
