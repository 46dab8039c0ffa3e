//! Control: metrics, health and commands, for operators on this machine and their tools. Nothing here runs on a worker.
//!
//! Every door (`http`, `stream`, `datagram`, `fifo`) reads a command in its protocol's form, says who asks, and writes the reply or the
//! fault. What the commands do, and the types of their replies, is in [`commands`].
//!
//! This crate reads what the data path counts, and asks `portcullis_rollout` to change it. It does not know how the host was started.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod answers;
mod api;
mod browser;
mod caller;
pub mod commands;
mod connections;
mod control;
mod datagram;
pub mod descriptors;
mod doors;
mod exposition;
mod fifo;
mod http;
mod http_server;
mod listening;
mod operation;
mod pages;
mod parts;
mod room;
mod socket_file;
mod stream;
pub mod token_file;

pub use control::Control;
pub use doors::{Doors, check};
pub use listening::Listening;
pub use operation::Refused;

#[cfg(test)]
mod tests;
