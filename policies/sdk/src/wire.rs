//! The types of the contract that the SDK replaces by richer ones or shares.

pub use crate::response::{Header, Rejection};

/// The decision on one request, as the host reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Relay: to a next hop, to the targets that were added, or as routed.
    Relay(Option<String>),
    /// Respond with a final status.
    Reject(Rejection),
    /// Drop the request.
    Drop,
    /// No decision.
    Pass,
}
