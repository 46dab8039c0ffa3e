//! What the operator's configuration gives this policy to read: a table of typed values.
//!
//! A key is the way to a value, with points between the names of tables: `hours.monday`. Where there is nothing, or a value of another
//! kind, the answer is none.
//!
//! ```toml
//! [tenants.acme.settings]
//! calls-per-second = 20
//! greeting = "Closed"
//! ```
//!
//! A policy that says what is wrong with its settings is asked before it serves: see [`policy!`](crate::policy).
//!
//! ```
//! use portcullis_sdk::prelude::*;
//! use portcullis_sdk::testing::{Host, Request};
//!
//! fn decide() -> Verdict {
//!     reject(503, settings::text("greeting").unwrap_or_default())
//! }
//!
//! fn validate() -> Result<(), String> {
//!     match settings::text("greeting") {
//!         Some(_) => Ok(()),
//!         None => Err("`greeting` must be a text".into()),
//!     }
//! }
//!
//! let host = Host::new().setting("greeting", "Closed");
//! assert_eq!(host.validate(validate), Ok(()));
//! assert_eq!(host.request(Request::invite("sip:bob@example.com")).decide(decide).verdict, reject(503, "Closed"));
//! assert!(Host::new().validate(validate).is_err());
//! ```

use crate::host;

/// A truth value.
pub fn boolean(key: &str) -> Option<bool> {
    host::boolean(key)
}

/// A whole number.
pub fn integer(key: &str) -> Option<i64> {
    host::integer(key)
}

/// A number, whole or not.
pub fn number(key: &str) -> Option<f64> {
    host::number(key)
}

/// A text.
pub fn text(key: &str) -> Option<String> {
    host::text(key)
}

/// A list in which all are texts.
pub fn texts(key: &str) -> Option<Vec<String>> {
    host::texts(key)
}

/// The names in a table, in alphabetical order; with an empty key those of the settings themselves. Empty where there is no table.
pub fn keys(key: &str) -> Vec<String> {
    host::keys(key)
}

/// All settings as a JSON object, for what the other functions do not reach.
pub fn json() -> String {
    host::json()
}
