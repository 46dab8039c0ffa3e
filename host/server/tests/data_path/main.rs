//! The data path of a host in the test's own process: the pipeline without sockets, and whole workers behind real ones.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod pipeline;
mod tcp;
mod tenants;
mod udp;
mod waiting;

#[path = "../support/mod.rs"]
mod support;
