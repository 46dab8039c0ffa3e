//! The control interfaces: metrics, health and commands, for operators and their tools. Nothing here runs on a worker.
//!
//! Each interface (`http`, `stream`, `datagram`, `fifo`) parses a command from its protocol, identifies the caller, and writes the reply or
//! the fault. [`commands`] has the implementations of the commands and the types of their replies.
//!
//! This crate reads the counters of the data path, and changes its state through `portcullis_rollout`. It does not depend on how the host
//! was started.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod acknowledged;
mod announcer;
mod answers;
mod api;
mod audit;
mod body;
mod browser;
mod caller;
pub mod commands;
mod conditions;
mod connections;
mod console;
mod control;
mod datagram;
pub mod descriptors;
mod doors;
mod exposition;
mod fifo;
mod fleet;
mod guesses;
mod heritage;
mod history;
mod http;
mod http_server;
mod idempotency;
mod listening;
mod memory;
pub mod memory_maps;
mod operation;
mod pages;
mod parts;
mod recent;
mod repeats;
mod room;
mod sampler;
mod socket_file;
mod statistics;
mod stream;
mod tls;
pub mod token_file;

pub use control::Control;
pub use doors::{Doors, check};
pub use heritage::{Heritage, Lent};
pub use listening::Listening;
pub use operation::Problem;

#[cfg(test)]
mod tests;
