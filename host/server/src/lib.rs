//! The Portcullis server: configuration, command line, control, transports and workers.
//!
//! `serve` assembles a running host; the data path is in `transport`, `worker` and `pipeline`; who decides on a request is in
//! `tenants`; everything that compiles, loads or talks to an operator runs beside it on its own runtime (`control`, `policy_files`,
//! `address_task`). `import` reads a kamailio.cfg.

#![forbid(unsafe_code)]

mod address_task;
pub mod cli;
mod compiler;
pub mod config;
pub mod control;
mod error_text;
pub mod import;
pub mod logging;
pub mod metrics;
pub mod pipeline;
pub mod policy_files;
pub mod records;
pub mod replay;
pub mod resolve;
pub mod serve;
pub mod shared;
pub mod signature;
pub mod tenants;
mod time;
pub mod transport;
pub mod worker;
