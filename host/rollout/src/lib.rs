//! What changes the data path: the set of tenants, policies on their way into service, routes and tables.
//!
//! [`Registry`] turns configurations, pushed policies and what the database says into the [`Tenants`](portcullis_dataplane::tenants::Tenants)
//! that workers read. Policies are compiled in a process of their own (`compiler`). This crate knows no door of control.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub mod address_task;
pub mod compiler;
mod deployments;
mod loader;
pub mod policy_files;
mod progress;
mod registry;
pub mod resolve;
mod settings;
mod tenant_set;

pub use deployments::{Arrival, Deployments, Provenance, Push, Reserved, ShipError, StoreStatus};
pub use progress::Progress;
pub use registry::{ReconfigureError, Reconfigured, Registry, RegistryError, Start, TenantError};
pub use tenant_set::TenantSetError;
