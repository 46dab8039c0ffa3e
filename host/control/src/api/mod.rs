//! `/v1`: tenants and policies over HTTP, for the command line and for other tools.
//!
//! Each operation is in the file of its command: its route with its description, and a handler that makes the command of the request.
//! The reply of the command, in JSON, is the answer. `GET /v1/openapi.json` describes all operations.

mod events;
mod trace;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value as Json;

use crate::Control;
use crate::commands::{
    self, address, alert, audit, dispatcher, fleet, guard, history, policy, rollout, tenant, tls,
    trusted,
};
use crate::operation::{Operation, Routes};

/// Every operation, in the order of the description.
const OPERATIONS: [fn(Routes) -> Routes; 70] = [
    describe,
    trace::operation,
    events::operation,
    tenant::ListTenants::operation,
    tenant::Own::operation,
    tenant::Show::operation,
    tenant::Put::operation,
    tenant::Remove::operation,
    tenant::ListStored::operation,
    tenant::CheckTenants::operation,
    tenant::ChangeTenants::operation,
    policy::Status::operation,
    policy::Push::operation,
    policy::put,
    policy::ListGenerations::operation,
    policy::pull,
    policy::decisions,
    policy::recent,
    policy::ShowSettings::operation,
    policy::PutSettings::operation,
    policy::Activate::operation,
    policy::Rollback::operation,
    policy::SetMode::operation,
    policy::Shadow::operation,
    policy::Canary::operation,
    policy::Diff::operation,
    policy::EndTrial::operation,
    policy::Inspect::operation,
    policy::TryOut::operation,
    address::ListAddresses::operation,
    address::Add::operation,
    address::Remove::operation,
    address::Find::operation,
    address::Show::operation,
    address::Replace::operation,
    address::Delete::operation,
    address::Import::operation,
    address::ChangeRows::operation,
    trusted::ListTrusted::operation,
    trusted::Add::operation,
    trusted::Remove::operation,
    trusted::Find::operation,
    guard::ListBarred::operation,
    guard::Ban::operation,
    guard::Release::operation,
    tls::ListConnections::operation,
    tls::Kill::operation,
    trusted::Show::operation,
    trusted::Replace::operation,
    trusted::Delete::operation,
    dispatcher::Show::operation,
    dispatcher::ListRows::operation,
    dispatcher::AddRow::operation,
    dispatcher::RemoveRows::operation,
    dispatcher::ShowRow::operation,
    dispatcher::ReplaceRow::operation,
    dispatcher::DeleteRow::operation,
    history::Show::operation,
    alert::ListAlerts::operation,
    alert::Acknowledge::operation,
    audit::ListActions::operation,
    fleet::ShowFleet::operation,
    fleet::DrainHost::operation,
    fleet::Forget::operation,
    rollout::ListRollouts::operation,
    rollout::ShowRollout::operation,
    rollout::StartRollout::operation,
    rollout::PauseRollout::operation,
    rollout::ResumeRollout::operation,
    rollout::AbortRollout::operation,
];

/// The description of all operations below `/v1`.
static OPENAPI: LazyLock<String> = LazyLock::new(|| all().description.finish(commands::described));

/// The methods of each path, as the router writes it.
static METHODS: LazyLock<HashMap<&str, Vec<Method>>> = LazyLock::new(|| all().methods);

/// Whether there is an operation with this method and this path, as the router writes it.
pub(crate) fn has(method: &Method, path: &str) -> bool {
    METHODS
        .get(path)
        .is_some_and(|methods| methods.contains(method))
}

/// Returns the routes below `/v1`.
pub(crate) fn routes() -> Router<Arc<Control>> {
    all().router
}

fn all() -> Routes {
    OPERATIONS
        .iter()
        .fold(Routes::new(), |routes, operation| operation(routes))
}

fn describe(routes: Routes) -> Routes {
    let get = Operation::new::<Json>(
        Method::GET,
        "/v1/openapi.json",
        "describe",
        "This description",
    );
    routes.on(get.answers(200, "OpenAPI 3.1").open(), openapi)
}

async fn openapi() -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, OPENAPI.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/openapi.json` is the description that the host serves. `PORTCULLIS_WRITE=1` writes the file.
    #[test]
    fn the_description_in_the_documentation_is_that_of_the_host() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        if std::env::var_os("PORTCULLIS_WRITE").is_some() {
            std::fs::write(path, OPENAPI.as_str()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(
            written == OPENAPI.as_str(),
            "docs/openapi.json differs: PORTCULLIS_WRITE=1 cargo nextest run -p portcullis-control updates it"
        );
    }

    /// Every reference can be resolved, and every operation has a unique id.
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
        assert_eq!((ids.len(), all), (OPERATIONS.len(), OPERATIONS.len()));
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
