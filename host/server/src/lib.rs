//! The `portcullis` binary: command line, start and end of a host ([`serve`]), logging.
//!
//! `serve` assembles the other crates: the data path (`portcullis_dataplane`), the code that changes its state (`portcullis_rollout`) and
//! the control interfaces (`portcullis_control`).

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub mod cli;
mod drain;
mod exchange;
pub mod logging;
mod modes;
mod notify;
mod rights;
pub mod seal_keys;
pub mod serve;
mod upgrade;
