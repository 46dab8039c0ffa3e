//! What changes the data path: the set of tenants, policies on their way into service, routes and tables.
//!
//! [`Registry`] turns configurations, pushed policies and what the database says into the [`Tenants`](portcullis_dataplane::tenants::Tenants)
//! that workers read. Policies are compiled in a process of their own (`compiler`). This crate knows no door of control.

#![forbid(unsafe_code)]

pub mod address_task;
pub mod compiler;
pub mod policy_files;
mod registry;
pub mod resolve;
mod settings;
mod tenant_set;

pub use registry::{
    Arrival, Progress, Provenance, Push, ReconfigureError, Reconfigured, Registry, RegistryError,
    Reserved, ShipError, Start, StoreStatus, TenantError,
};
pub use tenant_set::TenantSetError;
