//! State that outlives a sandbox: counters and rate limits, shared by all workers of a host.
//!
//! Each tenant has its own. They survive a change of the policy's generation, and end with the host. Their number is limited (10,000 unless
//! the host's configuration says otherwise): when the limit is reached, an expired one is evicted for a new one, or else one that has not
//! been used for long. Kamailio has the modules `pike`, `ratelimit` and `htable` for this.
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

/// Adds `amount` to a counter and returns its new value. A counter starts at 0 and expires `seconds` after its first addition, so it counts
/// the events of a time window.
pub fn add(name: &str, amount: u64, seconds: u32) -> u64 {
    host::add(name, amount, seconds)
}

/// The value of a counter; 0 if it does not exist or has expired.
pub fn value(name: &str) -> u64 {
    host::value(name)
}

/// Takes one token from a bucket that holds `burst` tokens and is refilled with `per_second` tokens per second. Returns true if there was a
/// token: the request is within the rate. A new bucket is full. With `burst` 0 the result is always false; if `per_second` is 0, negative
/// or NaN, the bucket is never refilled.
pub fn rate_limit(key: &str, per_second: f64, burst: u32) -> bool {
    host::rate_limit(key, per_second, burst)
}
