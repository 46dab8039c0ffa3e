//! Queries of allow and deny files, with the names of Kamailio's `permissions` module.
//!
//! Each line of such a file has a pattern for a left URI and a pattern for a right URI. A pair that a line of the allow file matches is
//! allowed; otherwise a pair that a line of the deny file matches is denied; a pair that no line matches is allowed. `basename` identifies
//! the pair of files in the directory named in the host's configuration (`[permissions] folder`); `None` means `permissions`. If there is no
//! such pair, everything is allowed, as in Kamailio.
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

/// Whether the From URI may call the request URI. The left text is the From URI, the right text the request URI as `sip:USER@HOST`.
///
/// Kamailio: `allow_routing(basename)`.
pub fn allow_routing(basename: Option<&str>) -> bool {
    host::allow_routing(basename)
}

/// Whether the To URI may be registered with every Contact. The left text is the To URI, the right text each Contact as `sip:USER@HOST`. A
/// request without a Contact, or with `*`, is allowed; one with more than 64 Contacts is denied if there are rules.
///
/// Kamailio: `allow_register(basename)`.
pub fn allow_register(basename: Option<&str>) -> bool {
    host::allow_register(basename)
}

/// As [`allow_register`], with the port of each Contact after its host, if it has one.
///
/// Kamailio: `allow_register_include_port(basename)`.
pub fn allow_register_include_port(basename: Option<&str>) -> bool {
    host::allow_register_include_port(basename)
}

/// Whether the From URI is allowed together with a given URI, which is matched unchanged.
///
/// Kamailio: `allow_uri(basename, uri)`.
pub fn allow_uri(basename: Option<&str>, uri: &str) -> bool {
    host::allow_uri(basename, uri)
}
