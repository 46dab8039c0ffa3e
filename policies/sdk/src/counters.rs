//! What fresh sandboxes can't keep: counters and rate limits, shared by all workers of a host.
//!
//! Each tenant has its own. They outlast the policy's generations, and end with the host. Their number is bounded (10,000 unless the
//! host's configuration says otherwise): when there is no room for a new one, one goes that is over, or else one that was not used for
//! long. Kamailio has the modules `pike`, `ratelimit` and `htable` for this.
//!
//! ```
//! use portcullis_sdk::prelude::*;
//! use portcullis_sdk::testing::{Host, Request};
//!
//! fn decide() -> Verdict {
//!     let source = request::source_address();
//!     if !counters::rate_limit(&source, 1.0, 2) {
//!         return reject(503, "Slow down").header("Retry-After", "1");
//!     }
//!     relay()
//! }
//!
//! let host = Host::new();
//! let call = || host.request(Request::invite("sip:bob@example.com")).decide(decide).verdict;
//! assert_eq!([call(), call()], [relay(), relay()]);
//! assert_ne!(call(), relay());
//! host.wait(1.0);
//! assert_eq!(call(), relay());
//! ```

use crate::host;

/// Adds `amount` to a counter and gives its new value. A counter starts at 0 and is forgotten `seconds` after its first addition, so it
/// counts what happens in a window.
pub fn add(name: &str, amount: u64, seconds: u32) -> u64 {
    host::add(name, amount, seconds)
}

/// The value of a counter; 0 for one that is not there or is over.
pub fn value(name: &str) -> u64 {
    host::value(name)
}

/// Takes one from a bucket that holds `burst` and fills with `per_second`: true if there was one, so that the request is within the rate.
/// A new bucket is full. With `burst` 0 the answer is always false; one that fills with 0, less, or no number is never filled again.
pub fn rate_limit(key: &str, per_second: f64, burst: u32) -> bool {
    host::rate_limit(key, per_second, burst)
}
