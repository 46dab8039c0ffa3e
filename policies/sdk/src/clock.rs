//! The time of day of the host. It does not advance during a call; a replay uses the recorded time.
//!
//! ```
//! use portcullis_sdk::prelude::*;
//! use portcullis_sdk::testing::{Host, Request};
//!
//! fn decide() -> Verdict {
//!     match clock::local("Europe/Berlin") {
//!         Some(time) if time.weekday <= 5 && (8..18).contains(&time.hour) => relay(),
//!         _ => reject(480, "Closed"),
//!     }
//! }
//!
//! // A Wednesday, half past seven in the evening in London.
//! let host = Host::new().at(2026, 11, 25, 19, 30).zone("Europe/Berlin", 3600);
//! assert_eq!(host.request(Request::invite("sip:bob@example.com")).decide(decide).verdict, reject(480, "Closed"));
//! ```

use crate::host;

pub use crate::local_time::LocalTime;

/// Milliseconds since 1970-01-01T00:00:00 UTC.
pub fn now() -> u64 {
    host::now()
}

/// The time in a zone of the IANA time zone database, such as `Europe/Berlin` or `UTC`; `None` if there is no zone with this name.
pub fn local(zone: &str) -> Option<LocalTime> {
    host::local(zone)
}
