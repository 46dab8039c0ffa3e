//! What became of the targets of a request: for the function that `policy!` names as `on_failure` (Kamailio: `failure_route`).
//!
//! In `decide`, there is nothing to read: lists are empty, and everything else is `None` or 0.
//!
//! ```
//! use portcullis_sdk::outcome::Cause;
//! use portcullis_sdk::prelude::*;
//! use portcullis_sdk::testing::{Callee, Host, Request};
//!
//! fn decide() -> Verdict {
//!     relay_to("carrier-a")
//! }
//!
//! fn on_failure() -> NextStep {
//!     match outcome::best() {
//!         Some(best) if best.cause != Cause::Answered => again(relay_to("carrier-b")),
//!         Some(best) if best.status == 404 => answer(410, "Gone"),
//!         _ => best_answer(),
//!     }
//! }
//!
//! let host = Host::new().callee("carrier-a", Callee::silent()).callee("carrier-b", Callee::answers(200));
//! let call = host.request(Request::invite("sip:bob@example.com")).complete_with(decide, on_failure);
//! assert_eq!(call.status, 200);
//! assert_eq!(call.places(), ["carrier-a", "carrier-b"]);
//! ```

use crate::host;

pub use crate::attempt::{Attempt, Cause};

/// The targets that have had their turn, in order.
pub fn attempts() -> Vec<Attempt> {
    host::attempts()
}

/// The attempt whose response the sender gets with [`best_answer`](crate::best_answer).
pub fn best() -> Option<Attempt> {
    host::best()
}

/// The value of the first header field with this name in the best response; `None` if there is no such field, or if the response is the
/// host's own.
pub fn header(name: &str) -> Option<String> {
    host::response_header(name)
}

/// The Contact URIs of a best response from 300 to 399, those with the highest q first; at most 8.
pub fn contacts() -> Vec<String> {
    host::contacts()
}

/// How often `on_failure` may be called for this request after this call.
pub fn tries_left() -> u8 {
    host::tries_left()
}

/// The bytes of the last [`memo`](crate::Verdict::memo).
pub fn memo() -> Vec<u8> {
    host::memo()
}
