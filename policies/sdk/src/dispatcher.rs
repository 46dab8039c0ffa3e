//! Sets of the dispatcher: gateways that share requests (Kamailio: the module `dispatcher`).
//!
//! A set is a number in the table `dispatcher` of the database. The host chooses among the destinations that are up, and tries the next one
//! when a destination fails.
//!
//! ```
//! use portcullis_sdk::dispatcher::{Algorithm, relay_to_set};
//! use portcullis_sdk::prelude::*;
//! use portcullis_sdk::testing::{Host, Request};
//!
//! fn decide() -> Verdict {
//!     relay_to_set(1, Algorithm::Weight, 3).unwrap_or_else(|| reject(503, "No gateway"))
//! }
//!
//! let invite = || Request::invite("sip:bob@example.com");
//! let host = Host::new().set(1, ["sip:192.0.2.1", "sip:192.0.2.2"]);
//! let outcome = host.request(invite()).decide(decide);
//! assert_eq!(outcome.sets, [(1, Algorithm::Weight, 2)]);
//!
//! let down = Host::new().set(1, [""; 0]);
//! assert_eq!(down.request(invite()).decide(decide).verdict, reject(503, "No gateway"));
//! ```

pub use crate::algorithm::Algorithm;
use crate::forwarding::Forwarding;
use crate::host;
use crate::next_step::NextStep;
use crate::target::Refusal;
use crate::verdict::Verdict;

/// Adds destinations of a set as targets, at most `limit` from 1 to 16: the first has this rank, and each further one the next rank. Returns how
/// many were added; 0 if none is up. Prefer [`relay_to_set`], which returns the verdict, too.
///
/// # Errors
/// [`Refusal::Unknown`] if there is no such set, [`Refusal::NotPermitted`] if this policy may not use it, [`Refusal::TooMany`] if the request
/// has its most targets already, [`Refusal::BadValue`] if the limit or a rank is out of range.
pub fn add_set(set: u32, algorithm: Algorithm, limit: u8, rank: u8) -> Result<u8, Refusal> {
    host::add_set(set, &algorithm, limit, rank)
}

/// Relays the request to destinations of a set, at most `limit` from 1 to 16, one after the other until one serves it. `None` if no destination
/// is up, or the host does not accept the set. `retry_on` and `memo` apply to the verdict; further targets do not.
pub fn relay_to_set(set: u32, algorithm: Algorithm, limit: u8) -> Option<Verdict> {
    let is_added = add_set(set, algorithm, limit, 0).is_ok_and(|added| added > 0);
    is_added.then(|| Verdict::Forward(Forwarding::added()))
}

/// After a failure: tries destinations of a set that have not been tried. `None` as with [`relay_to_set`].
pub fn again_with_set(set: u32, algorithm: Algorithm, limit: u8) -> Option<NextStep> {
    let is_added = add_set(set, algorithm, limit, 0).is_ok_and(|added| added > 0);
    is_added.then(|| NextStep::Again(Forwarding::added()))
}
