//! `tenant.remove`, over HTTP: remove a tenant from the database.

use portcullis_rpc::Fault;

use super::{Procedure, TenantChanged, fault};
use crate::Control;
use crate::caller::Caller;

/// `tenant.remove`.
#[derive(Debug)]
pub(crate) struct Remove {
    pub(crate) name: String,
}

impl Procedure for Remove {
    type Reply = TenantChanged;

    async fn execute(self, control: &Control, caller: &Caller) -> Result<TenantChanged, Fault> {
        let by = caller.to_string();
        let removed = control.registry.remove_tenant(&self.name, &by).await;
        removed.map_err(|error| fault(&error))?;
        Ok(TenantChanged::new(control, self.name).await)
    }
}
