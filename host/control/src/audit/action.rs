//! An action of a caller.

use std::time::SystemTime;

/// A command that may change something or hands out what is secret, with its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    /// Its number since the start of the host, from 1.
    pub(crate) id: u64,
    pub(crate) at: SystemTime,
    /// The author, as it is stored with a change.
    pub(crate) by: String,
    /// The tenant whose token was used.
    pub(crate) tenant: Option<String>,
    /// The name of the operator's token, if it has one.
    pub(crate) token: Option<String>,
    pub(crate) door: &'static str,
    pub(crate) command: &'static str,
    pub(crate) seat: Option<String>,
    /// What the command concerned: a row, a tenant, a generation.
    pub(crate) subject: Option<String>,
    /// Why it failed.
    pub(crate) error: Option<String>,
    /// Whether the caller could repeat it at will without having the right to: a failed action of a tenant, or one that a role does not permit.
    pub(crate) is_bounded: bool,
}
