//! The control port: metrics, health and JSON-RPC over HTTP, for operators on this machine.

mod dump;
mod methods;
mod readiness;
mod rpc;

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::metrics::{CONTENT_TYPE, Exposition};
use crate::pipeline::PolicyRequest;
use crate::policy_files::PolicyFiles;
use crate::shared::Shared;
use rpc::Fault;

/// The largest call; none takes more than a few hundred bytes.
const MOST_BODY: usize = 64 << 10;

/// What the control port works on.
pub struct Control {
    shared: Arc<Shared>,
    policy: Arc<PolicyFiles<PolicyRequest>>,
    exposition: Exposition,
}

impl Control {
    /// The control of this host.
    pub fn new(shared: Arc<Shared>, policy: Arc<PolicyFiles<PolicyRequest>>) -> Self {
        let exposition = Exposition::new(Arc::clone(&shared), Arc::clone(&policy));
        Self {
            shared,
            policy,
            exposition,
        }
    }

    /// Everything that the control port answers.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/", get(index))
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/RPC", post(call))
            .fallback((StatusCode::NOT_FOUND, INDEX))
            .layer(DefaultBodyLimit::max(MOST_BODY))
            .with_state(self)
    }

    /// Answers on `listener` until `end`. Requests that are being answered then are answered to the end.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        axum::serve(listener, self.router())
            .with_graceful_shutdown(end)
            .await
    }
}

const INDEX: &str = "GET /metrics, GET /healthz, GET /readyz, POST /RPC (JSON-RPC 2.0, start with system.listMethods)\n";

async fn index() -> &'static str {
    INDEX
}

async fn metrics(State(control): State<Arc<Control>>) -> Response {
    match control.exposition.text() {
        Ok(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(control): State<Arc<Control>>) -> Response {
    let missing = control.missing();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    let body: String = missing.into_iter().map(|what| what + "\n").collect();
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn call(State(control): State<Arc<Control>>, body: Bytes) -> Response {
    let (id, result) = match rpc::read(&body) {
        Ok(call) => {
            let result = control.execute(&call).await;
            (call.id, result)
        }
        Err((fault, id)) => (id, Err(fault)),
    };
    match result {
        Ok(body) => answer(StatusCode::OK, body),
        Err(fault) => fault_response(&id, &fault),
    }
}

fn fault_response(id: &Value, fault: &Fault) -> Response {
    let status =
        StatusCode::from_u16(fault.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match rpc::failure(id, fault) {
        Ok(body) => answer(status, body),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn answer(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests;
