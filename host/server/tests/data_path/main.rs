//! The data path of a host in the test's own process: the pipeline without sockets, and whole workers behind real ones.

#![forbid(unsafe_code)]

mod pipeline;
mod tcp;
mod udp;

#[path = "../support/mod.rs"]
mod support;
