//! What the host's guard knows of the source of the request, and evidence against the source (Kamailio: the module `pike`, a table of banned
//! addresses in `htable`).
//!
//! A report is evidence, as a rejection with 403 or 404 is. The guard acts on it when there is as much evidence as `[guard]` in the host's
//! configuration says. A source of datagrams is held at most, because its address may be forged; an address in a table of the host, a next hop and a load
//! balancer are never held or banned. A policy that rejects a request with 403 or 404 need not report it.
//!
//! ```
//! use portcullis_sdk::guard::Offence;
//! use portcullis_sdk::prelude::*;
//! use portcullis_sdk::testing::{Host, Request};
//!
//! /// Scanners get no answer, and are reported all the same.
//! fn decide() -> Verdict {
//!     if uri::user(&request::uri()).is_some_and(|user| user.starts_with("900")) {
//!         guard::report(Offence::Scan);
//!         return drop_request();
//!     }
//!     relay()
//! }
//!
//! let call = |uri| Host::new().request(Request::invite(uri)).decide(decide);
//! assert_eq!(call("sip:90046812@example.com").reported, Some(Offence::Scan));
//! assert_eq!(call("sip:bob@example.com").reported, None);
//! ```

pub use crate::standing::{Offence, Standing};

use crate::host;

/// What the guard does with the source of the request.
pub fn source_standing() -> Standing {
    host::source_standing()
}

/// Reports the source of the request. Returns whether the report counts: false if the source is exempt, and for a second report of one call.
///
/// It counts after the call, if the call does not fail and the policy is not in monitor mode or in a shadow trial.
pub fn report(offence: Offence) -> bool {
    host::report(offence)
}
