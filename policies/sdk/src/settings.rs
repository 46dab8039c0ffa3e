//! The settings that the operator's configuration passes to this policy: a table of typed values.
//!
//! A key is the path to a value, with dots between the names of tables: `hours.monday`. If there is no value, or a value of another type,
//! the result is `None`.
//!
//! ```toml
//! [tenants.acme.settings]
//! calls-per-second = 20
//! greeting = "Closed"
//! ```
//!
//! A policy can validate its settings before it becomes active: see [`policy!`](crate::policy).
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
//!     settings::known(&["greeting"])?;
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

/// A boolean.
pub fn boolean(key: &str) -> Option<bool> {
    host::boolean(key)
}

/// An integer.
pub fn integer(key: &str) -> Option<i64> {
    host::integer(key)
}

/// A number, integer or floating-point.
pub fn number(key: &str) -> Option<f64> {
    host::number(key)
}

/// A string.
pub fn text(key: &str) -> Option<String> {
    host::text(key)
}

/// A list of strings; `None` if any element is not a string.
pub fn texts(key: &str) -> Option<Vec<String>> {
    host::texts(key)
}

/// The keys of a table, in alphabetical order; with an empty `key`, those of the settings themselves. Empty if there is no such table.
pub fn keys(key: &str) -> Vec<String> {
    host::keys(key)
}

/// Whether the settings themselves have this key, whatever the type of its value.
pub fn has(key: &str) -> bool {
    keys("").iter().any(|other| other == key)
}

/// Fails if the settings have a key that is not among these, which is likely to be a spelling mistake. It is for functions that validate.
///
/// ```
/// use portcullis_sdk::prelude::*;
/// use portcullis_sdk::testing::Host;
///
/// fn validate() -> Result<(), String> {
///     settings::known(&["burst", "per-second"])
/// }
///
/// let wrong = Host::new().setting("per_second", 20).validate(validate);
/// assert_eq!(wrong, Err("`per_second` is unknown; there are burst, per-second".to_owned()));
/// ```
///
/// # Errors
/// For the operator, with the key and the known ones.
pub fn known(known: &[&str]) -> Result<(), String> {
    match keys("").iter().find(|key| !known.contains(&&***key)) {
        Some(key) => Err(format!(
            "`{key}` is unknown; there are {}",
            known.join(", ")
        )),
        None => Ok(()),
    }
}

/// All settings as a JSON object, for values that the other functions cannot return.
pub fn json() -> String {
    host::json()
}
