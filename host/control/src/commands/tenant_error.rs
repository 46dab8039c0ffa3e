//! The faults of stored tenants.

use portcullis_rollout::TenantError;
use portcullis_rpc::Fault;

use super::of_database;

/// The fault of a tenant that is not read or stored.
pub(super) fn fault(error: &TenantError) -> Fault {
    let code = match error {
        TenantError::Unknown(_) => 404,
        TenantError::InFile(_) | TenantError::Busy(_) => 409,
        TenantError::Changed(_) => 412,
        TenantError::Wrong(_)
        | TenantError::Together(_)
        | TenantError::Settings(_)
        | TenantError::Altered(_)
        | TenantError::Registry(_) => 422,
        TenantError::NoStore => 503,
        TenantError::Store(_) => return of_database(503, error),
    };
    Fault::new(code, error.to_string())
}
