//! `tenant.show`, over HTTP: a tenant of the database as it is stored.

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

/// A tenant of the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoredTenant {
    /// Its name.
    pub name: String,
    /// What would stand in its section of a configuration file, in TOML; null if it was removed.
    pub config: Option<String>,
    /// Grows with each change.
    pub revision: u64,
    /// Who changed it last.
    pub changed_by: String,
    /// When.
    pub changed_at: Timestamp,
}

impl Procedure for Show {
    type Reply = StoredTenant;

    async fn execute(self, control: &Control, _: &Caller) -> Result<StoredTenant, Fault> {
        let found = control.registry.stored_tenant(&self.name).await;
        let found = found.map_err(|error| fault(&error))?;
        let changed_at = UNIX_EPOCH.checked_add(Duration::from_secs(found.changed_at));
        Ok(StoredTenant {
            name: found.name,
            config: found.config,
            revision: found.revision,
            changed_by: found.changed_by,
            changed_at: changed_at.unwrap_or(UNIX_EPOCH).into(),
        })
    }
}

impl Show {
    /// `GET /v1/tenants/{name}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<StoredTenant>(
            Method::GET,
            TENANT,
            "showTenant",
            "A tenant of the database",
        );
        routes.on(
            get.answers(200, "As it is stored").refuses(&[404, 503]),
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
