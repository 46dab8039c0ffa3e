//! The `portcullis` binary: command line, start and end of a host ([`serve`]), log.
//!
//! `serve` puts together what the other crates bring: the data path (`portcullis_dataplane`), what changes it (`portcullis_rollout`) and
//! the doors of operators (`portcullis_control`).

#![forbid(unsafe_code)]

pub mod cli;
pub mod logging;
mod modes;
mod rights;
pub mod seal_keys;
pub mod serve;
