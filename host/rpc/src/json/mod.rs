//! JSON-RPC 2.0 as Kamailio's module `jsonrpcs` speaks it.
//!
//! `params` is a list or an object, whose names do not matter. There are no batches and no notifications. An unknown method is
//! 500 "Method Not Found", not -32601, and other faults keep their code too.

mod read;
mod write;

pub use read::{BadRequest, Request};
pub use write::{Layout, bare, failure, success, success_in_parts};

/// The largest reply that `kamcli` takes in one datagram.
pub const MOST_DATAGRAM_REPLY: usize = 84_000;
