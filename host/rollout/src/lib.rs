//! Changes the state of the data path: the set of tenants, deployed policies, routes and tables.
//!
//! [`Registry`] turns configurations, pushed policies and stored tenants into the [`Tenants`](portcullis_dataplane::tenants::Tenants) that
//! workers read. Policies are compiled in a separate process (`compiler`). This crate does not depend on the control interfaces.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub mod address_task;
mod aside;
pub mod compiler;
mod deployments;
mod fleet_parts;
mod flow_pinger;
mod flow_turns;
mod loader;
mod pinger;
pub mod policy_files;
mod progress;
mod registry;
pub mod resolve;
mod route_keeper;
mod settings;
mod shared_counters;
pub mod staged;
mod tenant_set;
pub mod tls_files;

pub use aside::{Aside, AsideError};
pub use deployments::{
    Arrival, Deployments, HostBehind, HostsLive, Moved, Provenance, Push, Reserved, RolloutError,
    RolloutStatus, ShipError, StoreStatus,
};
pub use fleet_parts::{fleet_parts, unix};
pub use flow_pinger::FlowPinger;
pub use pinger::Pinger;
pub use progress::Progress;
pub use registry::{ReconfigureError, Reconfigured, Registry, RegistryError, Start, TenantError};
pub use route_keeper::{RouteKeeper, RouteSources};
pub use shared_counters::SharedCounters;
pub use tenant_set::{RETAINED_GENERATIONS, TenantSetError, scope_of};
