//! The Portcullis server: configuration, command line, control, transports and workers.
//!
//! `serve` assembles a running host; the data path is in `transport`, `worker` and `pipeline`; everything that compiles,
//! loads or talks to an operator runs beside it on its own runtime (`control`, `policy_files`, `address_task`).

#![forbid(unsafe_code)]

pub mod config;
pub mod logging;
pub mod metrics;
pub mod shared;
