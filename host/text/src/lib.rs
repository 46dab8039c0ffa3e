//! Text for people: foreign text made harmless for terminals and logs, errors on one line, times in RFC 3339.
//!
//! Everything here is a function of its arguments, but for [`unix_seconds`]. This crate knows nothing of logs, terminals or of where a
//! text comes from.

#![forbid(unsafe_code)]

mod error;
mod terminal;
mod time;

pub use error::one_line;
pub use terminal::{Clean, clean, clean_json, clean_lines, is_active};
pub use time::{rfc3339, unix_seconds};
