//! Questions to the table of trusted peers, under the names of Kamailio's `permissions` module.
//!
//! Every row of the table `trusted` has a source address, a transport, a pattern for the From URI, a pattern for the request URI, a
//! tag and a priority. A pattern that is absent or empty fits everything. Rows are tried from the highest priority down.
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

/// The same for an address, a transport and, if given, a From URI of the policy's choice; the request URI is the request's.
///
/// `address` is compared as an address if it is one, and otherwise letter for letter. `transport` is `any`, `udp`, `tcp`, `tls`,
/// `sctp`, `ws` or `wss`, in any case; with `any` rows of all transports match.
///
/// Kamailio: `allow_trusted(address, transport, from_uri)`.
pub fn allow_trusted_address(address: &str, transport: &str, from_uri: Option<&str>) -> bool {
    host::allow_trusted_address(address, transport, from_uri)
}

/// How many rows match; [`tags`] gives the tags of all of them then.
///
/// Kamailio: `allow_trusted()` with `peer_tag_mode` 1.
pub fn count_trusted() -> u32 {
    host::count_trusted()
}

/// The same for an address, a transport and, if given, a From URI, as for [`allow_trusted_address`].
pub fn count_trusted_address(address: &str, transport: &str, from_uri: Option<&str>) -> u32 {
    host::count_trusted_address(address, transport, from_uri)
}

/// The tags of the rows that the last successful question of this module matched: one at most behind an `allow_…`, any number behind
/// a `count_…`.
///
/// A row without a tag adds none; an empty tag is a tag. Kamailio: the variable that `peer_tag_avp` names.
pub fn tags() -> Vec<String> {
    host::tags()
}
