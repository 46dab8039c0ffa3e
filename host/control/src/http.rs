//! HTTP: metrics, health, JSON-RPC, the console.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use portcullis_config::Token;
use portcullis_dataplane::tenants::Tenant;
use portcullis_dataplane::throttle::Throttle;
use portcullis_rpc::MOST_REQUEST;
use portcullis_rpc::json::{self, Layout};

use super::answers::{self, JsonBody};
use super::browser::{self, Foreign};
use super::console;
use super::control::Control;
use super::http_server::{Peer, whole};
use super::{api, conditions, idempotency, operation};
use crate::caller::{Authority, Caller, Door, NOT_YOURS};
use crate::exposition::Format;

pub(super) const INDEX: &str = "GET /metrics, GET /healthz, GET /readyz, POST /RPC (JSON-RPC 2.0, start with system.listMethods), /v1 (policies, \
     start with GET /v1/openapi.json)\n";

const NO_TOKEN: &str = "a token is required: send that of this host (`token` or `token-file` in [control]) or of a tenant as \"Authorization: Bearer TOKEN\"";

const TOO_MANY_GUESSES: &str = "too many wrong tokens from this address: try again later";

/// Limits the log lines about requests of web pages.
static FOREIGN: Throttle = Throttle::new();

/// Returns the router of everything that is served over HTTP.
pub(super) fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/RPC", post(call))
        .merge(api::routes())
        .fallback((StatusCode::NOT_FOUND, INDEX))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&control),
            conditions::check,
        ))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&control),
            idempotency::answer,
        ))
        .layer(middleware::from_fn_with_state(Arc::clone(&control), guard))
        .layer(middleware::from_fn(console::serve))
        // Load balancers have no token. Without one, they only learn whether the host is ready.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&control),
            refuse_pages,
        ))
        .layer(middleware::from_fn(operation::write_problems))
        .with_state(control)
}

fn tell_foreign(request: &Request, foreign: &Foreign) {
    let peer = request.extensions().get::<Peer>();
    let peer = peer.map_or_else(String::new, |Peer(peer)| peer.to_string());
    let (method, path) = (request.method(), request.uri().path());
    tracing::debug!(event = "http_request_refused", peer, %method, path = %path.escape_debug(), reason = foreign.0, "HTTP request refused");
    if let Some(unlogged) = FOREIGN.event() {
        tracing::warn!(
            event = "http_refused",
            peer,
            %method,
            path = %path.escape_debug(),
            reason = foreign.0,
            unlogged,
            "HTTP request refused: a browser sent it for a web page, or it names another host"
        );
    }
}

/// Returns the caller according to the request's token; `None` if the request has no valid token.
fn caller(control: &Control, headers: &HeaderMap) -> Option<Caller> {
    let own = control.token.as_ref();
    let Some(given) = headers.get(header::AUTHORIZATION) else {
        return own.is_none().then(|| Caller::operator(Door::Http));
    };
    let (scheme, given) = given.as_bytes().split_at_checked("Bearer ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return None;
    }
    let is = |token: &Token| token.is(given);
    if own.is_some_and(is) {
        return Some(Caller::operator(Door::Http));
    }
    let mut named = control.shared.config.control.tokens.iter();
    if let Some(named) = named.find(|named| is(&named.token)) {
        return Some(Caller::named(&named.name, named.role));
    }
    let tenants = control.shared.tenants.load();
    let mut configs = tenants
        .named
        .iter()
        .filter_map(|tenant| tenant.config.as_ref());
    let tenant = configs.find(|config| config.token.as_ref().is_some_and(is))?;
    Some(Caller::tenant(&tenant.name))
}

/// Whether metrics need no token. Without a token in the configuration, the interface is on loopback, and Prometheus runs on this machine.
/// If the configuration or a tenant has a token, the interface may also be reachable from elsewhere, for example through a proxy.
fn has_open_metrics(control: &Control) -> bool {
    let has_token = |tenant: &Arc<Tenant>| {
        let config = tenant.config.as_ref();
        config.is_some_and(|config| config.token.is_some())
    };
    let config = &control.shared.config.control;
    config.token.is_none()
        && config.tokens.is_empty()
        && !control.shared.tenants.load().named.iter().any(has_token)
}

/// A source that has sent too many wrong tokens.
struct Blocked {
    /// After how many seconds it may try again.
    seconds: u64,
}

impl IntoResponse for Blocked {
    fn into_response(self) -> Response {
        let refused = operation::refusal(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_GUESSES);
        ([(header::RETRY_AFTER, self.seconds.to_string())], refused).into_response()
    }
}

/// Returns the caller according to the request's token; `None` if the request has no valid token. Wrong tokens are counted by their source, and a
/// right one is accepted whatever else its source has sent.
///
/// # Errors
/// If the source has sent too many wrong tokens.
fn identify(
    control: &Control,
    peer: Option<Peer>,
    headers: &HeaderMap,
) -> Result<Option<Caller>, Blocked> {
    if let Some(caller) = caller(control, headers) {
        return Ok(Some(caller));
    }
    let Some(Peer(peer)) = peer.filter(|_| headers.contains_key(header::AUTHORIZATION)) else {
        return Ok(None);
    };
    let now = Instant::now();
    if let Some(seconds) = control.guesses.blocked(peer.ip(), now) {
        return Err(Blocked { seconds });
    }
    if control.guesses.note(peer.ip(), now) {
        tracing::warn!(
            event = "http_tokens_refused",
            peer = %peer.ip(),
            "too many wrong tokens: further wrong ones of this source are answered 429 for a minute"
        );
    }
    Ok(None)
}

/// Whether the caller may access this path.
fn may(caller: &Caller, path: &str) -> bool {
    let Authority::Tenant(tenant) = caller.authority() else {
        return true;
    };
    let is_below = |prefix: &str| {
        let rest = path.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    is_below(&format!("/v1/policies/{tenant}"))
        || is_below("/v1/addresses")
        || is_below("/v1/alerts")
        || [
            "/v1/openapi.json",
            "/v1/tenants/self",
            "/v1/stats",
            "/v1/audit",
        ]
        .contains(&path)
}

/// Refuses requests of web pages before anything else.
async fn refuse_pages(
    State(control): State<Arc<Control>>,
    request: Request,
    next: Next,
) -> Response {
    // With a configured token, the host may have any name, for example behind a proxy; a page does not have the token.
    let is_local = control.shared.config.control.token.is_none();
    match browser::check(request.uri(), request.headers(), is_local) {
        Ok(()) => next.run(request).await,
        Err(foreign) => {
            tell_foreign(&request, &foreign);
            operation::refusal(StatusCode::FORBIDDEN, foreign.0)
        }
    }
}

/// Refuses requests without authorisation, before the body is read.
async fn guard(State(control): State<Arc<Control>>, mut request: Request, next: Next) -> Response {
    let is_open = request.uri().path() == "/metrics" && has_open_metrics(&control);
    if is_open && !request.headers().contains_key(header::AUTHORIZATION) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Peer>().copied();
    let caller = match identify(&control, peer, request.headers()) {
        Ok(caller) => caller,
        Err(blocked) => return blocked.into_response(),
    };
    let Some(caller) = caller else {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"portcullis\"")];
        let refused = operation::refusal(StatusCode::UNAUTHORIZED, NO_TOKEN);
        return (challenge, refused).into_response();
    };
    let path = request.uri().path();
    if !may(&caller, path) {
        return operation::refusal(StatusCode::FORBIDDEN, NOT_YOURS);
    }
    if let Some(wrong) = browser::wrong_type(request.method(), path, request.headers()) {
        return operation::refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, wrong);
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

async fn index() -> &'static str {
    INDEX
}

async fn metrics(State(control): State<Arc<Control>>, headers: HeaderMap) -> Response {
    let format = Format::accepted(&headers);
    let make = || control.exposition.text(format);
    match control.pages.page(format, make) {
        Ok(page) => {
            let page = Bytes::from_owner(page);
            let fields = [
                (header::CONTENT_TYPE, format.content_type()),
                (header::VARY, "Accept"),
            ];
            (fields, page).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(
    State(control): State<Arc<Control>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Response {
    let missing = control.missing();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    let peer = peer.map(|Extension(peer)| peer);
    let caller = match identify(&control, peer, &headers) {
        Ok(caller) => caller,
        Err(blocked) => return blocked.into_response(),
    };
    let body = match caller.is_some_and(|caller| caller.is_operator()) {
        true => missing.into_iter().map(|what| what + "\n").collect(),
        false => "not ready\n".to_owned(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn call(
    State(control): State<Arc<Control>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Response {
    let body = match whole(body, MOST_REQUEST).await {
        Ok(body) => body,
        Err((status, text)) => return operation::refusal(status, text.trim_end()),
    };
    let request = json::Request::read(&body);
    let answer = answers::json_in_parts(&control, request, Layout::Compact, &caller).await;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = [(header::CONTENT_TYPE, "application/json")];
    let body = match answer.body {
        JsonBody::Whole(mut body) => {
            body.push(b'\n');
            Body::from(body)
        }
        JsonBody::Parts(parts) => Body::from_stream(parts.into_stream()),
    };
    (status, json, body).into_response()
}
