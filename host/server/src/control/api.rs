//! `/v1`: policies over HTTP, for the command line and for other tools. `openapi.json` beside this file describes it.
//!
//! Everything but push and pull is a command of JSON-RPC under another address, with the same answers.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use portcullis_policy::{Share, Trial};
use portcullis_rpc::json::{self, Layout};
use portcullis_rpc::{Call, Fault, Param, Reply};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::Control;
use super::commands::policy::fault;
use super::http::Caller;
use crate::tenants::{Arrival, Push, TenantError};
use crate::time::rfc3339;

/// What describes this interface to other tools.
const OPENAPI: &str = include_str!("openapi.json");

/// The media type of a policy.
const WASM: &str = "application/wasm";

/// What may stand behind the address of a push.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PushQuery {
    /// What the policy is called; `policy.wasm` if nothing is said.
    name: Option<String>,
    author: Option<String>,
    note: Option<String>,
    /// Ed25519 over the file, in Base64.
    signature: Option<String>,
    /// `keep`, `activate`, `shadow` or `canary`.
    arrival: Option<String>,
    /// With `canary`, for example `5%`.
    share: Option<String>,
}

/// What may stand behind the address of a change of a tenant.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TenantQuery {
    author: Option<String>,
}

/// What names a generation.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GenerationQuery {
    generation: Option<String>,
    share: Option<String>,
    mode: Option<String>,
}

type Api = State<Arc<Control>>;

impl Control {
    /// The addresses below `/v1`. `most` is the size of the largest policy.
    pub(super) fn api(most: usize) -> Router<Arc<Self>> {
        Router::new()
            .route("/v1/openapi.json", get(openapi))
            .route("/v1/tenants", get(tenants))
            .route(
                "/v1/tenants/{name}",
                get(tenant).put(put_tenant).delete(remove_tenant),
            )
            .route("/v1/policies/{seat}", get(status).post(push))
            .route("/v1/policies/{seat}/generations", get(generations))
            .route("/v1/policies/{seat}/generations/{generation}", get(pull))
            .route("/v1/policies/{seat}/activate", post(activate))
            .route("/v1/policies/{seat}/rollback", post(roll_back))
            .route("/v1/policies/{seat}/mode", put(mode))
            .route("/v1/policies/{seat}/shadow", post(shadow))
            .route("/v1/policies/{seat}/canary", post(canary))
            .route("/v1/policies/{seat}/candidate", get(diff).delete(end_trial))
            .layer(DefaultBodyLimit::max(most))
    }

    /// Does what a command of JSON-RPC does, for whoever may.
    async fn command<const N: usize>(&self, method: &str, params: [&str; N]) -> Response {
        let params = params.map(|text| Param::Text(text.to_owned()));
        let call = Call {
            method: method.to_owned(),
            params: params.into(),
        };
        let answered = self.execute(&call).await;
        let unknown = || Err(Fault::new(500, "Method Not Found"));
        match answered.unwrap_or_else(unknown) {
            Ok(reply) => body(reply),
            Err(fault) => refusal(&fault),
        }
    }

    /// What whoever changed a tenant reads.
    async fn stored(&self, name: &str) -> Response {
        let live = self.is_live().await;
        axum::Json(json!({"name": name, "live_on_all_workers": live})).into_response()
    }

    async fn receive(
        &self,
        seat: &str,
        query: PushQuery,
        author: String,
        bytes: &Bytes,
    ) -> Result<Json, Fault> {
        let arrival = arrival(query.arrival.as_deref(), query.share.as_deref())?;
        let push = Push {
            name: query.name.unwrap_or_else(|| "policy.wasm".to_owned()),
            bytes: bytes.to_vec(),
            author,
            note: query.note.unwrap_or_default(),
            // A `+` of Base64 that nobody has escaped is a space.
            signature: query.signature.unwrap_or_default().replace(' ', "+"),
        };
        let pushed = self.registry.push(seat, push, arrival).await;
        let generation = pushed.map_err(|error| fault(&error))?;
        let policy = &generation.policy;
        let live = self.is_live().await;
        let warning = policy
            .trial_failure()
            .map(|failure| format!("it fails on a plain OPTIONS: {failure}"));
        let warning = warning.or_else(|| self.unstored());
        Ok(json!({
            "seat": seat,
            "generation": generation.number,
            "digest": format!("sha256:{}", policy.digest()),
            "bytes": policy.inspection().size,
            "load_ms": u64::try_from(policy.load_time().as_millis()).unwrap_or(u64::MAX),
            "arrival": match arrival {
                Arrival::Keep => "kept",
                Arrival::Activate => "active",
                Arrival::Try(Trial::Shadow) => "shadow",
                Arrival::Try(Trial::Canary(_)) => "canary",
            },
            "live_on_all_workers": live,
            "warning": warning,
        }))
    }
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn tenants(State(control): Api) -> Response {
    control.command("tenant.list", []).await
}

async fn tenant(State(control): Api, Path(name): Path<String>) -> Response {
    match control.registry.stored_tenant(&name).await {
        Ok(found) => axum::Json(json!({
            "name": found.name,
            "config": found.config,
            "revision": found.revision,
            "changed_by": found.changed_by,
            "changed_at": rfc3339(UNIX_EPOCH + Duration::from_secs(found.changed_at)),
        }))
        .into_response(),
        Err(error) => refusal(&tenant_fault(&error)),
    }
}

async fn put_tenant(
    State(control): Api,
    Path(name): Path<String>,
    Query(query): Query<TenantQuery>,
    text: String,
) -> Response {
    let by = query.author.as_deref().unwrap_or("operator");
    match control.registry.put_tenant(&name, &text, by).await {
        Ok(()) => control.stored(&name).await,
        Err(error) => refusal(&tenant_fault(&error)),
    }
}

async fn remove_tenant(
    State(control): Api,
    Path(name): Path<String>,
    Query(query): Query<TenantQuery>,
) -> Response {
    let by = query.author.as_deref().unwrap_or("operator");
    match control.registry.remove_tenant(&name, by).await {
        Ok(()) => control.stored(&name).await,
        Err(error) => refusal(&tenant_fault(&error)),
    }
}

fn tenant_fault(error: &TenantError) -> Fault {
    let code = match error {
        TenantError::Unknown(_) => 404,
        TenantError::InFile(_) => 409,
        TenantError::Wrong(_) | TenantError::Registry(_) => 422,
        TenantError::Store(_) | TenantError::NoStore => 503,
    };
    Fault::new(code, error.to_string())
}

async fn status(State(control): Api, Path(seat): Path<String>) -> Response {
    control.command("policy.status", [&seat]).await
}

async fn generations(State(control): Api, Path(seat): Path<String>) -> Response {
    control.command("policy.list", [&seat]).await
}

async fn push(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Path(seat): Path<String>,
    Query(query): Query<PushQuery>,
    bytes: Bytes,
) -> Response {
    let author = match (&caller, &query.author) {
        (Caller::Operator, Some(author)) => author.clone(),
        (Caller::Operator, None) => "operator".to_owned(),
        // Whoever has a tenant's token speaks for the tenant, whatever else he calls himself.
        (Caller::Tenant(tenant), Some(author)) => format!("{tenant}: {author}"),
        (Caller::Tenant(tenant), None) => tenant.clone(),
    };
    match control.receive(&seat, query, author, &bytes).await {
        Ok(answer) => (StatusCode::CREATED, axum::Json(answer)).into_response(),
        Err(fault) => refusal(&fault),
    }
}

async fn pull(State(control): Api, Path((seat, number)): Path<(String, String)>) -> Response {
    let number = match number.as_str() {
        "active" => None,
        digits => match digits.parse() {
            Ok(number) => Some(number),
            Err(_) => {
                let text = format!("`{digits}` is not the number of a generation, nor `active`");
                return refusal(&Fault::new(400, text));
            }
        },
    };
    match control.registry.pull(&seat, number).await {
        Ok(bytes) => ([(header::CONTENT_TYPE, WASM)], bytes.to_vec()).into_response(),
        Err(error) => refusal(&fault(&error)),
    }
}

async fn activate(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Path(seat): Path<String>,
    Query(query): Query<GenerationQuery>,
) -> Response {
    let number = query.generation.unwrap_or_default();
    let by = signature(&caller);
    control
        .command("policy.activate", [&seat, &number, &by])
        .await
}

async fn roll_back(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Path(seat): Path<String>,
    Query(query): Query<GenerationQuery>,
) -> Response {
    let by = signature(&caller);
    match query.generation {
        Some(number) => {
            control
                .command("policy.rollback", [&seat, &number, &by])
                .await
        }
        None => control.command("policy.rollback", [&seat, &by]).await,
    }
}

async fn shadow(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Path(seat): Path<String>,
    Query(query): Query<GenerationQuery>,
) -> Response {
    let number = query.generation.unwrap_or_default();
    let by = signature(&caller);
    control
        .command("policy.shadow", [&seat, &number, &by])
        .await
}

async fn canary(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Path(seat): Path<String>,
    Query(query): Query<GenerationQuery>,
) -> Response {
    let number = query.generation.unwrap_or_default();
    let share = query.share.unwrap_or_default();
    let by = signature(&caller);
    control
        .command("policy.canary", [&seat, &number, &share, &by])
        .await
}

async fn mode(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Path(seat): Path<String>,
    Query(query): Query<GenerationQuery>,
) -> Response {
    let mode = query.mode.unwrap_or_default();
    let by = signature(&caller);
    control.command("policy.mode", [&seat, &mode, &by]).await
}

async fn diff(State(control): Api, Path(seat): Path<String>) -> Response {
    control.command("policy.diff", [&seat]).await
}

async fn end_trial(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Path(seat): Path<String>,
) -> Response {
    let by = signature(&caller);
    control.command("policy.endTrial", [&seat, &by]).await
}

/// Who changes something, as the last parameter of a command.
fn signature(caller: &Caller) -> String {
    match caller {
        Caller::Operator => "by=operator".to_owned(),
        Caller::Tenant(tenant) => format!("by={tenant}"),
    }
}

fn arrival(word: Option<&str>, share: Option<&str>) -> Result<Arrival, Fault> {
    let share = share.map(|text| {
        let text = format!("`{text}` is no share: write 5%, two digits behind the point at most");
        (Share::parse(share.unwrap_or_default())).ok_or_else(|| Fault::new(400, text))
    });
    match (word, share.transpose()?) {
        (None | Some("keep"), None) => Ok(Arrival::Keep),
        (Some("activate"), None) => Ok(Arrival::Activate),
        (Some("shadow"), None) => Ok(Arrival::Try(Trial::Shadow)),
        (Some("canary"), Some(share)) => Ok(Arrival::Try(Trial::Canary(share))),
        (Some("canary"), None) => Err(Fault::new(
            400,
            "a canary needs a share, for example share=5%",
        )),
        (None | Some("keep" | "activate" | "shadow"), Some(_)) => {
            Err(Fault::new(400, "a share goes with arrival=canary only"))
        }
        (Some(other), _) => {
            let text = format!("`{other}` is no arrival: write keep, activate, shadow or canary");
            Err(Fault::new(400, text))
        }
    }
}

/// The reply as JSON, without the frame of JSON-RPC.
fn body(reply: Reply) -> Response {
    let framed = json::success(&Json::Null, reply, Layout::Compact, usize::MAX);
    let framed = framed
        .ok()
        .and_then(|text| serde_json::from_slice::<Json>(&text).ok());
    match framed.and_then(|mut framed| Some(framed.get_mut("result")?.take())) {
        Some(result) => axum::Json(result).into_response(),
        None => refusal(&Fault::new(500, "the answer can't be written")),
    }
}

fn refusal(fault: &Fault) -> Response {
    let status = StatusCode::from_u16(fault.http_status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(json!({"error": fault.message}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_of_this_interface() {
        let described: Json = serde_json::from_str(OPENAPI).unwrap();
        assert_eq!(described["info"]["version"], env!("CARGO_PKG_VERSION"));
        let source = include_str!("api.rs");
        let mut routes = 0;
        for line in source
            .lines()
            .filter(|line| line.trim().starts_with(".route(\"/v1"))
        {
            let path = line.split('"').nth(1).unwrap();
            for method in ["get", "post", "put", "delete"] {
                let is_served = line.contains(&format!("{method}("));
                let is_described = described["paths"][path][method].is_object();
                assert_eq!(is_served, is_described, "{method} {path}");
                routes += usize::from(is_served);
            }
        }
        assert!(routes > 10, "{routes}");
        let paths = described["paths"].as_object().unwrap();
        assert!(
            paths
                .keys()
                .all(|path| source.contains(&format!("\"{path}\"")))
        );
    }

    #[test]
    fn arrivals_are_read() {
        let canary = Arrival::Try(Trial::Canary(Share::parse("5%").unwrap()));
        for (word, share, expected) in [
            (None, None, Arrival::Keep),
            (Some("activate"), None, Arrival::Activate),
            (Some("shadow"), None, Arrival::Try(Trial::Shadow)),
            (Some("canary"), Some("5%"), canary),
        ] {
            assert_eq!(arrival(word, share).unwrap(), expected);
        }
        for (word, share) in [
            (Some("canary"), None),
            (Some("canary"), Some("5")),
            (Some("activate"), Some("5%")),
            (Some("now"), None),
        ] {
            assert!(arrival(word, share).is_err(), "{word:?} {share:?}");
        }
    }
}
