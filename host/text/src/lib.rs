//! Text for people: untrusted text escaped for terminals and logs, errors on one line, times in RFC 3339, names of hosts.
//!
//! Everything here is a pure function, except [`unix_seconds`].

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod error;
mod host;
mod terminal;
mod time;

pub use error::one_line;
pub use host::is_loopback;
pub use terminal::{Clean, clean, clean_json, clean_lines, is_active};
pub use time::{from_rfc3339, rfc3339, unix_seconds};
