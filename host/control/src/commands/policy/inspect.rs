//! `policy.inspect`, over HTTP: what a policy file contains. Nothing is kept, compiled or run.

use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_policy::{Inspection, inspect};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Dispatch, Procedure, WASM, digest, files_of};
use crate::Control;
use crate::body::read_body;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Operation, Routes, Segments, answer};
use crate::room::Purpose;

/// Files of the operator that are read at the same time, and those of tenants. This takes CPU time that the workers need, too.
static OPERATORS: Semaphore = Semaphore::const_new(1);
static TENANTS: Semaphore = Semaphore::const_new(1);

/// `policy.inspect`.
pub(crate) struct Inspect {
    seat: String,
    bytes: Bytes,
    /// Memory reserved for the bytes.
    room: OwnedSemaphorePermit,
}

/// What a policy file contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyInspection {
    /// Module or component.
    pub kind: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Digest of the file.
    pub digest: String,
    /// World that a module is built for; null for a component.
    pub world: Option<String>,
    /// Version of the SDK; null if the file was built without it.
    pub sdk: Option<String>,
    /// Initial memory in bytes.
    pub memory_bytes: u64,
    /// Maximum of the memory in bytes; null if the file has none.
    pub max_memory_bytes: Option<u64>,
    /// Imports.
    pub imports: Vec<String>,
    /// Exports.
    pub exports: Vec<String>,
    /// Languages and tools.
    pub producers: Vec<PolicyProducer>,
}

/// A language or a tool that made a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyProducer {
    /// language, processed-by or sdk.
    pub role: String,
    /// Name.
    pub name: String,
    /// Version; possibly empty.
    pub version: String,
}

impl Procedure for Inspect {
    type Reply = PolicyInspection;

    const NEEDS: TokenRole = TokenRole::Read;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<PolicyInspection, Fault> {
        files_of(control, &self.seat)?;
        let at_work = match caller.is_operator() {
            true => &OPERATORS,
            false => &TENANTS,
        };
        let _turn = at_work.acquire().await;
        let (bytes, room) = (self.bytes, self.room);
        let read = tokio::task::spawn_blocking(move || {
            let found = inspect(&bytes);
            drop(room);
            found
        });
        match read.await {
            Ok(Ok(found)) => Ok(found.into()),
            Ok(Err(problem)) => Err(Fault::new(422, problem.to_string())),
            Err(error) => Err(Fault::new(500, error.to_string())),
        }
    }
}

impl From<Inspection> for PolicyInspection {
    fn from(found: Inspection) -> Self {
        let imports = found.imports.iter().map(ToString::to_string);
        let exports = found.exports.iter().map(|export| export.name.clone());
        let producers = found.producers.iter().map(|producer| PolicyProducer {
            role: producer.role.clone(),
            name: producer.name.clone(),
            version: producer.version.clone(),
        });
        Self {
            kind: found.kind.to_string(),
            bytes: found.size as u64,
            digest: digest(found.digest),
            imports: imports.collect(),
            exports: exports.collect(),
            producers: producers.collect(),
            world: found.world,
            sdk: found.sdk,
            memory_bytes: found.memory_bytes,
            max_memory_bytes: found.max_memory_bytes,
        }
    }
}

impl Inspect {
    /// `POST /v1/policies/{seat}/inspect`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<PolicyInspection>(
            Method::POST,
            "/v1/policies/{seat}/inspect",
            "inspectPolicy",
            "Show what a policy file contains; nothing is kept",
        );
        let post = post.body(
            WASM,
            json!({"type": "string", "format": "binary"}),
            "A WebAssembly module or component",
        );
        let post = post.answers(200, "What the file contains");
        routes.on(post.refuses(&[404, 408, 413, 415, 422, 500, 503]), ask)
    }
}

async fn ask(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    body: Body,
) -> Answer {
    // Before anything of the body is read or kept.
    caller.may(Inspect::NEEDS)?;
    caller.may_ask_about(Some(&seat))?;
    files_of(&control, &seat)?;
    let most = control.shared.config.policy.seat.limits.module_bytes;
    let (bytes, room) = read_body(&control.room, &caller, Purpose::Inspection, body, most).await?;
    let command = Inspect { seat, bytes, room };
    answer(command.dispatch(&control, &caller).await)
}

impl std::fmt::Debug for Inspect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspect")
            .field("seat", &self.seat)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}
