//! `tenant.…`: the tenants.

mod list;
mod own;
mod put;
mod reload;
mod remove;
mod show;
mod stored;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tenant_error::fault;
use super::{Dispatch, FromCall, Procedure};
use crate::Control;

pub(crate) use list::ListTenants;
pub use list::{Origin, TenantStatus};
pub(crate) use own::Own;
pub use own::{TenantLimits, TenantSelf};
pub(crate) use put::Put;
pub(crate) use reload::Reload;
pub use reload::TenantsReload;
pub(crate) use remove::Remove;
pub(crate) use show::Show;
pub use show::StoredTenant;
pub(crate) use stored::{ChangeTenants, CheckTenants, ListStored};
pub use stored::{StoredTenants, TenantProblem, TenantsChanged, TenantsChecked, TenantsToCheck};

/// The path of a tenant.
const TENANT: &str = "/v1/tenants/{name}";

/// Description of the response to a change of a tenant.
const STORED: &str =
    "Stored, and applied here; the other hosts of the database follow within about a second";

/// The query of a change of a tenant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct TenantQuery {
    /// Author of the change
    author: Option<String>,
}

/// The reply to a change of a stored tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantChanged {
    /// Name of the tenant.
    pub name: String,
    /// Whether all workers use the new configuration.
    pub live_on_all_workers: bool,
}

impl TenantChanged {
    async fn new(control: &Control, name: String) -> Self {
        Self {
            name,
            live_on_all_workers: control.is_live().await,
        }
    }
}
