//! Questions to allow and deny files, under the names of Kamailio's `permissions` module.
//!
//! Each line of such a file has patterns for a URI on its left and for another on its right. A pair that a line of the allow file
//! matches is allowed; otherwise one that a line of the deny file matches is denied; what no line matches is allowed. `basename`
//! names the pair of files in the folder that the host's configuration names (`[permissions] folder`); none stands for
//! `permissions`. Where there is no such pair, everything is allowed, as in Kamailio.
//!
//! ```
//! use portcullis_sdk::prelude::*;
//! use portcullis_sdk::testing::{Host, Request};
//!
//! fn decide() -> Verdict {
//!     if allow_routing(Some("calls")) { relay() } else { reject(403, "Destination not allowed") }
//! }
//!
//! let host = Host::new().rules("calls", |from, to| from.starts_with("sip:alice@") && to.starts_with("sip:+49"));
//! let call = |to| host.request(Request::invite(to).from_uri("sip:alice@example.org")).decide(decide).verdict;
//! assert_eq!(call("sip:+4930123@example.com;user=phone"), relay());
//! assert_eq!(call("sip:+3312345@example.com"), reject(403, "Destination not allowed"));
//! ```

use crate::host;

/// Whether the From URI may call the request URI: left the From URI, right the request URI as `sip:USER@HOST`.
///
/// Kamailio: `allow_routing(basename)`.
pub fn allow_routing(basename: Option<&str>) -> bool {
    host::allow_routing(basename)
}

/// Whether the To URI may be registered with every Contact: left the To URI, right each Contact as `sip:USER@HOST`. Without a
/// Contact, and with `*`, it may; with more than 64, the host denies it if there are rules.
///
/// Kamailio: `allow_register(basename)`.
pub fn allow_register(basename: Option<&str>) -> bool {
    host::allow_register(basename)
}

/// The same with the port of each Contact behind its host, where it has one.
///
/// Kamailio: `allow_register_include_port(basename)`.
pub fn allow_register_include_port(basename: Option<&str>) -> bool {
    host::allow_register_include_port(basename)
}

/// Whether the From URI goes with a URI of the policy's choice, taken as it stands.
///
/// Kamailio: `allow_uri(basename, uri)`.
pub fn allow_uri(basename: Option<&str>, uri: &str) -> bool {
    host::allow_uri(basename, uri)
}
