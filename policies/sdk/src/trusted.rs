//! Queries of the table of trusted peers, with the names of Kamailio's `permissions` module.
//!
//! Every row of the table `trusted` has a source address, a transport, a pattern for the From URI, a pattern for the request URI, a tag and
//! a priority. A missing or empty pattern matches every URI. Rows are tried in order of descending priority.
//!
//! ```
//! use portcullis_sdk::prelude::*;
//! use portcullis_sdk::testing::{Host, Request};
//!
//! fn decide() -> Verdict {
//!     if !allow_trusted() {
//!         return reject(403, "Unknown peer");
//!     }
//!     match trusted::tags().pop() {
//!         Some(trunk) => relay_to(trunk),
//!         None => relay(),
//!     }
//! }
//!
//! let host = Host::new().trusted("192.0.2.7", "udp").tag("trunk-a");
//! let call = |source| host.request(Request::invite("sip:bob@example.com").from_source(source)).decide(decide).verdict;
//! assert_eq!(call("192.0.2.7:5060"), relay_to("trunk-a"));
//! assert_eq!(call("192.0.2.8:5060"), reject(403, "Unknown peer"));
//! ```

use crate::host;

/// True if a row matches the request's source address, transport, From URI and request URI.
///
/// Kamailio: `allow_trusted()` with `peer_tag_mode` 0.
pub fn allow_trusted() -> bool {
    host::allow_trusted()
}

/// As [`allow_trusted`], for a given address, transport and, optionally, From URI; the request URI is that of the request.
///
/// `address` is compared as an address if it is one, and literally otherwise. `transport` is `any`, `udp`, `tcp`, `tls`, `sctp`, `ws` or
/// `wss`, in upper or lower case; `any` matches rows of all transports.
///
/// Kamailio: `allow_trusted(address, transport, from_uri)`.
pub fn allow_trusted_address(address: &str, transport: &str, from_uri: Option<&str>) -> bool {
    host::allow_trusted_address(address, transport, from_uri)
}

/// The number of matching rows; afterwards, [`tags`] returns the tags of all of them.
///
/// Kamailio: `allow_trusted()` with `peer_tag_mode` 1.
pub fn count_trusted() -> u32 {
    host::count_trusted()
}

/// As [`count_trusted`], for a given address, transport and, optionally, From URI, as for [`allow_trusted_address`].
pub fn count_trusted_address(address: &str, transport: &str, from_uri: Option<&str>) -> u32 {
    host::count_trusted_address(address, transport, from_uri)
}

/// The tags of the rows matched by the last successful query of this module: at most one after an `allow_…`, any number after a `count_…`.
///
/// A row without a tag contributes none; an empty tag is a tag. Kamailio: the variable named by `peer_tag_avp`.
pub fn tags() -> Vec<String> {
    host::tags()
}
