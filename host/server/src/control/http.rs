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
use tokio::net::TcpListener;

use super::Control;
use crate::config::Token;
use crate::metrics::CONTENT_TYPE;

pub(super) const INDEX: &str = "GET /metrics, GET /healthz, GET /readyz, POST /RPC (JSON-RPC 2.0, start with system.listMethods), /v1 (policies, \
     start with GET /v1/openapi.json)\n";

/// The answer to a tenant who asks for what is not his.
const NOT_YOURS: &str = "a tenant's token reaches /v1/policies/ with the tenant's own name only\n";

const NO_TOKEN: &str = "send the token of this host (`token` in [control]) or of a tenant as \"Authorization: Bearer TOKEN\"\n";

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Whoever has the host's token, or comes from this machine where there is none.
    Operator,
    /// Whoever has the token of this tenant.
    Tenant(String),
}

impl Control {
    /// Everything that is answered over HTTP.
    pub(super) fn router(self: Arc<Self>) -> Router {
        let largest_policy = self.shared.config.policy.seat.limits.module_bytes;
        Router::new()
            .route("/", get(index))
            .route("/metrics", get(metrics))
            .route("/RPC", post(call))
            .layer(DefaultBodyLimit::max(MOST_REQUEST))
            .merge(Self::api(largest_policy))
            .fallback((StatusCode::NOT_FOUND, INDEX))
            .layer(middleware::from_fn_with_state(Arc::clone(&self), guard))
            // Load balancers have no token, and learn no more than yes or no.
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
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

    /// Who is asking; none if that can't be told from what he brings.
    fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let own = self.shared.config.control.token.as_ref();
        let Some(given) = headers.get(header::AUTHORIZATION) else {
            return own.is_none().then_some(Caller::Operator);
        };
        let (scheme, given) = given.as_bytes().split_at_checked("Bearer ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return None;
        }
        let is = |token: &Token| token.is(given);
        if own.is_some_and(is) {
            return Some(Caller::Operator);
        }
        let tenants = self.shared.tenants.load();
        let mut configs = tenants
            .named
            .iter()
            .filter_map(|tenant| tenant.config.as_ref());
        let tenant = configs.find(|config| config.token.as_ref().is_some_and(is))?;
        Some(Caller::Tenant(tenant.name.clone()))
    }

    /// Whether this is somebody from whom the host has no secrets.
    fn is_operator(&self, headers: &HeaderMap) -> bool {
        self.caller(headers) == Some(Caller::Operator)
    }
}

impl Caller {
    /// Whether he may ask for this.
    fn may(&self, path: &str) -> bool {
        let Self::Tenant(tenant) = self else {
            return true;
        };
        let own = path.strip_prefix("/v1/policies/");
        let rest = own.and_then(|own| own.strip_prefix(tenant.as_str()));
        path == "/v1/openapi.json"
            || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

async fn guard(State(control): State<Arc<Control>>, mut request: Request, next: Next) -> Response {
    let Some(caller) = control.caller(request.headers()) else {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"portcullis\"")];
        return (StatusCode::UNAUTHORIZED, challenge, NO_TOKEN).into_response();
    };
    if !caller.may(request.uri().path()) {
        return (StatusCode::FORBIDDEN, NOT_YOURS).into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
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
    let body = match control.is_operator(&headers) {
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
