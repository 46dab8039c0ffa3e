//! The parameters.

use std::time::Duration;

/// Parameters of a soak with a fleet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Whether the database is a Galera cluster of three nodes, over which the hosts spread.
    pub(crate) is_cluster: bool,
    /// Number of hosts.
    pub(crate) hosts: usize,
    /// Rows of the address table.
    pub(crate) rows: u32,
    /// Tenants in the database, each with a policy of its own.
    pub(crate) tenants: u32,
    /// Number of changes: of rows, and half as many each of policies and tenants.
    pub(crate) changes: usize,
    /// How long the idle fleet is watched.
    pub(crate) idle: Duration,
}
