//! `tenant.remove`, over HTTP: remove a tenant from the database.

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_rpc::Fault;

use super::{Dispatch, Procedure, STORED, TENANT, TenantChanged, TenantQuery, fault};
use crate::Control;
use crate::caller::Caller;
use crate::operation::{Answer, Api, Given, Operation, Routes, Segments, answer};

/// `tenant.remove`.
#[derive(Debug)]
pub(crate) struct Remove {
    pub(crate) name: String,
}

impl Procedure for Remove {
    type Reply = TenantChanged;

    fn subject(&self) -> Option<String> {
        Some(format!("tenant {}", self.name))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<TenantChanged, Fault> {
        let by = caller.to_string();
        let removed = control.registry.remove_tenant(&self.name, &by).await;
        removed.map_err(|error| fault(&error))?;
        Ok(TenantChanged::new(control, self.name).await)
    }
}

impl Remove {
    /// `DELETE /v1/tenants/{name}`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let delete = Operation::new::<TenantChanged>(
            Method::DELETE,
            TENANT,
            "removeTenant",
            "Remove a stored tenant",
        );
        let delete = delete.query::<TenantQuery>(&[]).answers(200, STORED);
        routes.on(delete.refuses(&[404, 409, 415, 422, 503]), remove)
    }
}

async fn remove(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(name): Segments<String>,
    Given(query): Given<TenantQuery>,
) -> Answer {
    let caller = caller.called(query.author);
    answer(Remove { name }.dispatch(&control, &caller).await)
}
