//! `/v1`: tenants and policies over HTTP, for the command line and for other tools.
//!
//! A request becomes a [`Command`], as a call of JSON-RPC does, and its answer is the reply in JSON. [`routes`] says which request is which
//! command, and describes it: `GET /v1/openapi.json` is made of the same lines.

mod openapi;
mod request;
mod trace;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::handler::Handler;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use portcullis_rpc::{Fault, json};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::Control;
use crate::caller::Caller;
use crate::commands::Command;
use crate::commands::policy::{
    self, Activate, Canary, Changed, Comparison, Diff, EndTrial, GenerationStatus, Pushed,
    Rollback, SeatStatus, SetMode, Shadow, arrival, fault, generation, mode_of, share,
};
use crate::commands::tenant::{self, Put, Remove, Show, StoredTenant, TenantChanged, TenantStatus};
use openapi::{Description, Operation};
use request::{Given, Refusal, Segments, policy_body, text_body};

pub use openapi::Refused;
pub(crate) use request::refusal;

/// The media type of a policy.
const WASM: &str = "application/wasm";

/// What may stand behind the address of a push.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct PushQuery {
    /// What it is called in logs and lists; policy.wasm if nothing is said
    name: Option<String>,
    /// Who brings it
    author: Option<String>,
    /// What is new in it
    note: Option<String>,
    /// Ed25519 over the file, in Base64, where the seat has signers
    signature: Option<String>,
    /// What becomes of it; keep if nothing is said
    #[schemars(extend("enum" = ["keep", "activate", "shadow", "canary"]))]
    arrival: Option<String>,
    /// With arrival=canary: a share of the dialogs, for example 5%
    #[schemars(extend("pattern" = SHARE))]
    share: Option<String>,
}

/// What may stand behind the address of a change of a tenant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct TenantQuery {
    /// Who changes it
    author: Option<String>,
}

/// What names a generation.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct GenerationQuery {
    /// The number of a generation that the host keeps
    #[schemars(with = "Option<u64>", extend("maximum" = u64::MAX))]
    generation: Option<String>,
}

/// What names a generation and a share of the dialogs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct CanaryQuery {
    /// The number of a generation that the host keeps
    #[schemars(with = "Option<u64>", extend("maximum" = u64::MAX))]
    generation: Option<String>,
    /// Of the dialogs, by a stable hash of Call-ID: 5%, two digits behind the point at most
    #[schemars(extend("pattern" = SHARE))]
    share: Option<String>,
}

/// What names a mode.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ModeQuery {
    /// Whether verdicts are carried out
    #[schemars(extend("enum" = ["enforce", "monitor"]))]
    mode: Option<String>,
}

/// Shares as they are written.
const SHARE: &str = r"^(100(\.0{1,2})?|[0-9]{1,2}(\.[0-9]{1,2})?)%$";

/// A policy: a WebAssembly module or component.
#[derive(JsonSchema)]
#[schemars(inline, extend("format" = "binary"))]
#[expect(dead_code, reason = "it is described only")]
struct Binary(String);

type Api = State<Arc<Control>>;
type Answer = Result<Response, Refusal>;

/// Routes with their description, which is made of the same lines.
struct Routes {
    router: Router<Arc<Control>>,
    description: Description,
}

impl Routes {
    /// Adds an operation.
    fn on<H, T>(mut self, operation: Operation, handler: H) -> Self
    where
        H: Handler<T, Arc<Control>>,
        T: 'static,
    {
        self.description.add(&operation);
        // A method without a filter is none of ours.
        let filter = MethodFilter::try_from(operation.method().clone());
        let filter = filter.unwrap_or(MethodFilter::GET);
        self.router = self.router.route(operation.path(), on(filter, handler));
        self
    }
}

/// The addresses below `/v1`.
pub(crate) fn routes() -> Router<Arc<Control>> {
    all().router
}

/// The description of everything below `/v1`.
static OPENAPI: LazyLock<String> = LazyLock::new(|| all().description.finish());

fn all() -> Routes {
    const SEAT: &str = "/v1/policies/{seat}";
    const TENANT: &str = "/v1/tenants/{name}";
    const STORED: &str =
        "Stored, and live here; other hosts of the database follow within about a second";
    let routes = Routes {
        router: Router::new(),
        description: Description::new(),
    };
    let get = Operation::new::<Json>(
        Method::GET,
        "/v1/openapi.json",
        "describe",
        "This description",
    );
    let routes = routes.on(get.answers(200, "OpenAPI 3.1").open(), openapi);

    let get = Operation::new::<Json>(
        Method::GET,
        "/v1/trace",
        "trace",
        "Follow what becomes of messages",
    );
    let get = get
        .query::<trace::TraceQuery>(&[])
        .sends("application/x-ndjson")
        .refuses(&[429]);
    let get = get.answers(200, "One JSON object a line for as long as the connection lives; an empty line every 5 seconds while nothing comes, {\"left_out\": N} for messages that were left out");
    let routes = routes.on(get, trace::trace);

    let get = Operation::new::<Vec<TenantStatus>>(
        Method::GET,
        "/v1/tenants",
        "listTenants",
        "The tenants, with what became of their requests",
    );
    let routes = routes.on(get, tenants);

    let get = Operation::new::<StoredTenant>(
        Method::GET,
        TENANT,
        "showTenant",
        "A tenant of the database",
    );
    let routes = routes.on(
        get.answers(200, "As it is stored").refuses(&[404, 503]),
        show_tenant,
    );
    let put = Operation::new::<TenantChanged>(
        Method::PUT,
        TENANT,
        "putTenant",
        "Make or change a tenant of the database",
    );
    let put = put.query::<TenantQuery>(&[]).answers(200, STORED);
    let put = put.body(
        "application/toml",
        json!({"type": "string"}),
        "What would stand in its section of a configuration file",
    );
    let routes = routes.on(
        put.refuses(&[404, 408, 409, 413, 415, 422, 503]),
        put_tenant,
    );
    let delete = Operation::new::<TenantChanged>(
        Method::DELETE,
        TENANT,
        "removeTenant",
        "Remove a tenant from the database",
    );
    let delete = delete.query::<TenantQuery>(&[]).answers(200, STORED);
    let routes = routes.on(delete.refuses(&[404, 409, 415, 422, 503]), remove_tenant);

    let get = Operation::new::<SeatStatus>(Method::GET, SEAT, "showSeat", "What serves at a seat");
    let routes = routes.on(
        get.answers(200, "The state of the seat").refuses(&[404]),
        show_seat,
    );
    let post = Operation::new::<Pushed>(
        Method::POST,
        SEAT,
        "pushPolicy",
        "Push a policy: checked, compiled and tried before anything depends on it",
    );
    let post = post
        .query::<PushQuery>(&[])
        .answers(201, "It is there; with arrival=activate it serves");
    let post = post.body(
        WASM,
        json!({"type": "string", "format": "binary"}),
        "A WebAssembly module or component that keeps the contract",
    );
    let routes = routes.on(
        post.refuses(&[404, 408, 409, 413, 415, 422, 429, 500, 503]),
        push,
    );

    let get = Operation::new::<Vec<GenerationStatus>>(
        Method::GET,
        "/v1/policies/{seat}/generations",
        "listGenerations",
        "The generations of a seat",
    );
    let routes = routes.on(get.refuses(&[404, 503]), list_generations);
    let get = Operation::new::<Binary>(
        Method::GET,
        "/v1/policies/{seat}/generations/{generation}",
        "pullPolicy",
        "The file of a generation",
    );
    let get = get.answers(200, "The file").sends(WASM);
    let routes = routes.on(get.refuses(&[404, 503]), pull);

    const CHANGES: &[u16] = &[404, 409, 415, 422, 429, 500, 503];
    let post = Operation::new::<Changed>(
        Method::POST,
        "/v1/policies/{seat}/activate",
        "activatePolicy",
        "Let a generation serve",
    );
    let post = post
        .query::<GenerationQuery>(&["generation"])
        .answers(200, "It serves");
    let routes = routes.on(post.refuses(CHANGES), activate);
    let post = Operation::new::<Changed>(
        Method::POST,
        "/v1/policies/{seat}/rollback",
        "rollBackPolicy",
        "Let the generation serve again that did before, or another one",
    );
    let post = post.query::<GenerationQuery>(&[]).answers(200, "It serves");
    let routes = routes.on(post.refuses(CHANGES), roll_back);
    let put = Operation::new::<String>(
        Method::PUT,
        "/v1/policies/{seat}/mode",
        "setMode",
        "Say whether verdicts are carried out",
    );
    let put = put
        .query::<ModeQuery>(&["mode"])
        .answers(200, "The seat and its mode");
    let routes = routes.on(put.refuses(CHANGES), set_mode);
    let post = Operation::new::<Changed>(
        Method::POST,
        "/v1/policies/{seat}/shadow",
        "shadowPolicy",
        "Ask a generation beside the one that serves, and carry nothing out",
    );
    let post = post
        .query::<GenerationQuery>(&["generation"])
        .answers(200, "It is asked");
    let routes = routes.on(post.refuses(CHANGES), shadow);
    let post = Operation::new::<Changed>(
        Method::POST,
        "/v1/policies/{seat}/canary",
        "canaryPolicy",
        "Let a generation decide on a share of the dialogs",
    );
    let post = post
        .query::<CanaryQuery>(&["generation", "share"])
        .answers(200, "It decides on its share");
    let routes = routes.on(post.refuses(CHANGES), canary);
    let get = Operation::new::<Comparison>(
        Method::GET,
        "/v1/policies/{seat}/candidate",
        "compareCandidate",
        "What the shadowed generation decides otherwise",
    );
    let routes = routes.on(get.answers(200, "The comparison").refuses(&[404]), compare);
    let delete = Operation::new::<Changed>(
        Method::DELETE,
        "/v1/policies/{seat}/candidate",
        "endTrial",
        "End the trial of the candidate",
    );
    routes.on(
        delete.answers(200, "It has ended").refuses(CHANGES),
        end_trial,
    )
}

async fn openapi() -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, OPENAPI.as_str()).into_response()
}

async fn tenants(State(control): Api, Extension(caller): Extension<Caller>) -> Answer {
    answer(&control, Command::TenantList(tenant::List), &caller).await
}

async fn show_tenant(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(name): Segments<String>,
) -> Answer {
    answer(&control, Command::TenantShow(Show { name }), &caller).await
}

async fn put_tenant(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(name): Segments<String>,
    Given(query): Given<TenantQuery>,
    body: Body,
) -> Answer {
    let config = text_body(body).await?;
    let caller = caller.called(query.author);
    answer(&control, Command::TenantPut(Put { name, config }), &caller).await
}

async fn remove_tenant(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(name): Segments<String>,
    Given(query): Given<TenantQuery>,
) -> Answer {
    let caller = caller.called(query.author);
    answer(&control, Command::TenantRemove(Remove { name }), &caller).await
}

async fn show_seat(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
) -> Answer {
    let command = Command::PolicyStatus(policy::Status { seat });
    answer(&control, command, &caller).await
}

async fn list_generations(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
) -> Answer {
    let command = Command::PolicyList(policy::List { seat });
    answer(&control, command, &caller).await
}

/// Takes a policy in. Its bytes are read when there is a place for it at the seat, and room for them beside those of others.
async fn push(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<PushQuery>,
    body: Body,
) -> Answer {
    let arrival = arrival(query.arrival.as_deref(), query.share.as_deref())?;
    let place = control
        .registry
        .deployments()
        .reserve(&seat, !caller.is_operator());
    let place = place.map_err(|error| fault(&error))?;
    let (bytes, room) = policy_body(&control, &caller, body, place.most()).await?;
    let push = policy::Push {
        seat,
        place,
        bytes: bytes.into(),
        room,
        name: query.name.unwrap_or_else(|| "policy.wasm".to_owned()),
        note: query.note.unwrap_or_default(),
        // A `+` of Base64 that nobody has escaped is a space.
        signature: query.signature.unwrap_or_default().replace(' ', "+"),
        arrival,
    };
    let caller = caller.called(query.author);
    let pushed = answer(&control, Command::PolicyPush(push), &caller).await?;
    Ok((StatusCode::CREATED, pushed).into_response())
}

async fn pull(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments((seat, number)): Segments<(String, String)>,
) -> Answer {
    let number = match number.as_str() {
        "active" => None,
        digits => match digits.parse() {
            Ok(number) => Some(number),
            Err(_) => {
                let text = format!("`{digits}` is not the number of a generation, nor `active`");
                return Err(Fault::new(400, text).into());
            }
        },
    };
    let most = control.shared.config.policy.seat.limits.module_bytes;
    let room = control.room.acquire(&caller, most).await?;
    let pulled = control.registry.deployments().pull(&seat, number).await;
    let bytes = pulled.map_err(|error| fault(&error))?;
    let sent = Bytes::from_owner(Sent { bytes, _room: room });
    Ok(([(header::CONTENT_TYPE, WASM)], sent).into_response())
}

/// A policy that is sent, with the room that it takes until then.
struct Sent {
    bytes: Arc<[u8]>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

async fn activate(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<GenerationQuery>,
) -> Answer {
    let generation = generation(&query.generation.unwrap_or_default())?;
    let command = Command::PolicyActivate(Activate { seat, generation });
    answer(&control, command, &caller).await
}

async fn roll_back(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<GenerationQuery>,
) -> Answer {
    let to = query.generation.as_deref().map(generation).transpose()?;
    let command = Command::PolicyRollback(Rollback { seat, to });
    answer(&control, command, &caller).await
}

async fn shadow(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<GenerationQuery>,
) -> Answer {
    let generation = generation(&query.generation.unwrap_or_default())?;
    let command = Command::PolicyShadow(Shadow { seat, generation });
    answer(&control, command, &caller).await
}

async fn canary(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<CanaryQuery>,
) -> Answer {
    let command = Command::PolicyCanary(Canary {
        seat,
        share: share(&query.share.unwrap_or_default())?,
        generation: generation(&query.generation.unwrap_or_default())?,
    });
    answer(&control, command, &caller).await
}

async fn set_mode(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    Given(query): Given<ModeQuery>,
) -> Answer {
    let mode = mode_of(&query.mode.unwrap_or_default())?;
    let command = Command::PolicyMode(SetMode { seat, mode });
    answer(&control, command, &caller).await
}

async fn compare(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
) -> Answer {
    answer(&control, Command::PolicyDiff(Diff { seat }), &caller).await
}

async fn end_trial(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
) -> Answer {
    let command = Command::PolicyEndTrial(EndTrial { seat });
    answer(&control, command, &caller).await
}

/// Carries a command out: its reply in JSON.
async fn answer(control: &Control, command: Command, caller: &Caller) -> Answer {
    let reply = command.execute(control, caller).await?;
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((json, json::bare(reply)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `docs/openapi.json` says is what the host serves. `PORTCULLIS_WRITE=1` writes it anew.
    #[test]
    fn the_description_in_the_documentation_is_that_of_the_host() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        if std::env::var_os("PORTCULLIS_WRITE").is_some() {
            std::fs::write(path, OPENAPI.as_str()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(
            written == OPENAPI.as_str(),
            "docs/openapi.json differs: PORTCULLIS_WRITE=1 cargo nextest run -p portcullis-control writes it anew"
        );
    }

    /// Every reference leads somewhere, and every operation has a name of its own.
    #[test]
    fn the_description_is_whole() {
        let described: Json = serde_json::from_str(&OPENAPI).unwrap();
        let mut references = Vec::new();
        collect(&described, &mut references);
        assert!(references.len() > 50, "{}", references.len());
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(described.pointer(pointer).is_some(), "{reference}");
        }
        let paths = described["paths"].as_object().unwrap();
        let operations = paths
            .values()
            .flat_map(|path| path.as_object().unwrap().values());
        let mut ids: Vec<_> = operations
            .map(|operation| operation["operationId"].as_str().unwrap())
            .collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), all), (17, 17));
        assert!(described["x-json-rpc"]["portcullis.status"]["result"].is_object());
    }

    fn collect(json: &Json, references: &mut Vec<String>) {
        match json {
            Json::Object(members) => {
                for (name, value) in members {
                    match value {
                        Json::String(reference) if name == "$ref" => {
                            references.push(reference.clone());
                        }
                        Json::Null
                        | Json::Bool(_)
                        | Json::Number(_)
                        | Json::String(_)
                        | Json::Array(_)
                        | Json::Object(_) => collect(value, references),
                    }
                }
            }
            Json::Array(all) => all.iter().for_each(|one| collect(one, references)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }
}
