//! Changes to the header fields of the request that take effect when it is relayed (Kamailio: `append_hf`, `remove_hf`).
//!
//! The changes are applied if the request is finally relayed, by this policy or, after a [`pass`](crate::pass), by another one; otherwise
//! they are discarded. The functions of [`request`](crate::request) continue to return the received values.
//!
//! Header fields of the host, and those that routing, dialogs and the body depend on, cannot be changed: Via, From, To, Call-ID, CSeq,
//! Contact, Max-Forwards, Route, Record-Route, Content-Length, Content-Type, Content-Encoding, Server, and their compact forms. Naming one
//! of these, a name that is not a token, a value with a line break, and more than 32 changes are failures of the policy.
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

/// Adds a header field after all others. Returns false without a change if the host's configuration does not permit this policy to change
/// header fields with this name.
pub fn add_header(name: &str, value: &str) -> bool {
    host::add_header(name, value)
}

/// Removes all received header fields with this name. Names are case-insensitive, and a compact form is equivalent to its full form.
/// Returns false without a change if the host's configuration does not permit this policy to change them.
pub fn remove_header(name: &str) -> bool {
    host::remove_header(name)
}
