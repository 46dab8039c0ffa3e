//! `tenant.reload`: read the configuration file again and apply its tenants.

use portcullis_rpc::{Call, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::{ReloadStatus, not_reloaded};
use super::{FromCall, Procedure};
use crate::Control;
use crate::caller::Caller;

/// `tenant.reload`.
#[derive(Debug)]
pub(crate) struct Reload;

/// The reply of `tenant.reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantsReload {
    /// Result.
    pub status: ReloadStatus,
    /// New tenants.
    pub added: Vec<String>,
    /// Tenants with a changed configuration.
    pub changed: Vec<String>,
    /// Tenants that no longer exist.
    pub removed: Vec<String>,
    /// Other sections of the file that differ from the running configuration; they take effect at the next start.
    pub need_a_start: Vec<String>,
}

impl FromCall for Reload {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Reload {
    type Reply = TenantsReload;

    async fn execute(self, control: &Control, _: &Caller) -> Result<TenantsReload, Fault> {
        let done = control.registry.reconfigure().await;
        let done = done.map_err(not_reloaded)?;
        let sections = done.need_a_start.into_iter();
        Ok(TenantsReload {
            status: ReloadStatus::Ok,
            added: done.added,
            changed: done.changed,
            removed: done.removed,
            need_a_start: sections.map(str::to_owned).collect(),
        })
    }
}
