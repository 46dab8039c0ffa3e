//! HTTP: metrics, health, JSON-RPC.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use portcullis_rpc::json::{self, Layout};
use portcullis_rpc::{Fault, MOST_REQUEST};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;

use super::Control;
use crate::metrics::CONTENT_TYPE;

pub(super) const INDEX: &str = "GET /metrics, GET /healthz, GET /readyz, POST /RPC (JSON-RPC 2.0, start with system.listMethods)\n";

const NO_TOKEN: &str =
    "send the token of this host (`token` in [control]) as \"Authorization: Bearer TOKEN\"\n";

impl Control {
    /// Everything that is answered over HTTP.
    pub(super) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/", get(index))
            .route("/metrics", get(metrics))
            .route("/RPC", post(call))
            .fallback((StatusCode::NOT_FOUND, INDEX))
            .layer(middleware::from_fn_with_state(Arc::clone(&self), guard))
            // Load balancers have no token, and learn no more than yes or no.
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .layer(DefaultBodyLimit::max(MOST_REQUEST))
            .with_state(self)
    }

    /// Answers on `listener` until `end`. Requests that are being answered then are answered to the end.
    pub(super) async fn serve_http(
        self: Arc<Self>,
        listener: TcpListener,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        axum::serve(listener, self.router())
            .with_graceful_shutdown(end)
            .await
    }

    /// True if the request brings the token, or none is needed.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.shared.config.control.token else {
            return true;
        };
        let given = headers
            .get(header::AUTHORIZATION)
            .map_or(&b""[..], |value| value.as_bytes());
        let Some((scheme, given)) = given.split_at_checked("Bearer ".len()) else {
            return false;
        };
        // In a time that does not tell how much of it is right.
        scheme.eq_ignore_ascii_case(b"Bearer ") && token.secret().as_bytes().ct_eq(given).into()
    }
}

async fn guard(State(control): State<Arc<Control>>, request: Request, next: Next) -> Response {
    if control.admits(request.headers()) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"portcullis\"")];
    (StatusCode::UNAUTHORIZED, challenge, NO_TOKEN).into_response()
}

async fn index() -> &'static str {
    INDEX
}

async fn metrics(State(control): State<Arc<Control>>) -> Response {
    match control.exposition.text() {
        Ok(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(control): State<Arc<Control>>, headers: HeaderMap) -> Response {
    let missing = control.missing();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    let body = match control.admits(&headers) {
        true => missing.into_iter().map(|what| what + "\n").collect(),
        false => "not ready\n".to_owned(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn call(State(control): State<Arc<Control>>, body: Bytes) -> Response {
    let request = json::Request::read(&body);
    // A client of HTTP takes what comes.
    let never = |_| Fault::new(500, "Internal error creating rpc");
    let answer = control.answer_json(request, Layout::Compact, usize::MAX, never);
    let mut answer = answer.await;
    answer.body.push(b'\n');
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = [(header::CONTENT_TYPE, "application/json")];
    (status, json, answer.body).into_response()
}
