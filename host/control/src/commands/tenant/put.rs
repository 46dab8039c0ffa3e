//! `tenant.put`, over HTTP: make or change a tenant of the database.

use portcullis_rpc::Fault;

use super::{Procedure, TenantChanged, fault};
use crate::Control;
use crate::caller::Caller;

/// `tenant.put`.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) name: String,
    /// What would stand in its section of a configuration file, in TOML.
    pub(crate) config: String,
}

impl Procedure for Put {
    type Reply = TenantChanged;

    async fn execute(self, control: &Control, caller: &Caller) -> Result<TenantChanged, Fault> {
        let (registry, by) = (&control.registry, caller.to_string());
        let put = registry.put_tenant(&self.name, &self.config, &by).await;
        put.map_err(|error| fault(&error))?;
        Ok(TenantChanged::new(control, self.name).await)
    }
}
