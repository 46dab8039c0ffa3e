//! `tenant.show`, over HTTP: a stored tenant.

use std::time::{Duration, UNIX_EPOCH};

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Timestamp;
use super::{Dispatch, Procedure, TENANT, fault};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Operation, Routes, Segments, answer};

/// `tenant.show`.
#[derive(Debug)]
pub(crate) struct Show {
    pub(crate) name: String,
}

/// A stored tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoredTenant {
    /// Name.
    pub name: String,
    /// Content of its section, in TOML; null if the tenant was removed.
    pub config: Option<String>,
    /// Increases with each change.
    pub revision: u64,
    /// Author of the last change.
    pub changed_by: String,
    /// Time of the last change.
    pub changed_at: Timestamp,
}

impl Procedure for Show {
    type Reply = StoredTenant;

    fn subject(&self) -> Option<String> {
        Some(format!("tenant {}", self.name))
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<StoredTenant, Fault> {
        let found = control.registry.stored_tenant(&self.name).await;
        Ok(found.map_err(|error| fault(&error))?.into())
    }
}

impl From<portcullis_store::StoredTenant> for StoredTenant {
    fn from(row: portcullis_store::StoredTenant) -> Self {
        let changed_at = UNIX_EPOCH.checked_add(Duration::from_secs(row.changed_at));
        Self {
            name: row.name,
            config: row.config,
            revision: row.revision,
            changed_by: row.changed_by,
            changed_at: changed_at.unwrap_or(UNIX_EPOCH).into(),
        }
    }
}

impl Show {
    /// `GET /v1/tenants/{name}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<StoredTenant>(
            Method::GET,
            TENANT,
            "showTenant",
            "Show a stored tenant",
        );
        routes.on(
            get.answers(200, "The stored tenant").refuses(&[404, 503]),
            show,
        )
    }
}

async fn show(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(name): Segments<String>,
) -> Answer {
    answer(Show { name }.dispatch(&control, &caller).await)
}
