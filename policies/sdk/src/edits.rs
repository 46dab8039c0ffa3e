//! Changes to the header of the request, for when it is relayed (Kamailio: `append_hf`, `remove_hf`).
//!
//! They are made if the request is relayed in the end, by this policy or, after a [`pass`](crate::pass), by another; otherwise they are
//! forgotten. What [`request`](crate::request) shows stays as it was received.
//!
//! The host's own header fields and those that routing, dialogs and the body rest on can't be changed: Via, From, To, Call-ID, CSeq,
//! Contact, Max-Forwards, Route, Record-Route, Content-Length, Content-Type, Content-Encoding, Server, and their compact forms. To name
//! one of these, a name that is no token or a value with a line break is a failure of the policy, as are more than 32 changes.
//!
//! ```
//! use portcullis_sdk::prelude::*;
//! use portcullis_sdk::testing::{Edit, Host, Request};
//!
//! fn decide() -> Verdict {
//!     edits::remove_header("P-Asserted-Identity");
//!     edits::add_header("X-Group", "200");
//!     relay()
//! }
//!
//! let outcome = Host::new().request(Request::invite("sip:bob@example.com")).decide(decide);
//! assert_eq!(outcome.edits, [Edit::remove("P-Asserted-Identity"), Edit::add("X-Group", "200")]);
//! ```

use crate::host;

/// Adds a header field behind all others. False, and nothing is changed, if the host's configuration keeps header fields of this name
/// from this policy.
pub fn add_header(name: &str, value: &str) -> bool {
    host::add_header(name, value)
}

/// Takes out all header fields of this name that were received. Names are not case-sensitive, and a compact form and its full form are
/// the same name. False, and nothing is changed, if the host's configuration keeps them from this policy.
pub fn remove_header(name: &str) -> bool {
    host::remove_header(name)
}
