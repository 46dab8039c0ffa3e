//! The four state machines of RFC 3261 §17, with RFC 6026.
//!
//! A machine is a small value: it reads codes and times, and returns what its owner must do. The owner has the messages. Each state names the
//! timers that run in it by their letters in RFC 3261 table 4. Over a reliable transport, states that only wait for retransmissions are skipped.

mod client_invite;
mod client_non_invite;
mod repeat;
mod server_invite;
mod server_non_invite;
mod steps;

pub use client_invite::ClientInvite;
pub use client_non_invite::ClientNonInvite;
pub use repeat::Repeat;
pub use server_invite::ServerInvite;
pub use server_non_invite::ServerNonInvite;
pub use steps::{ClientTimer, OnAck, OnResponse, OnRetransmission, ServerTimer};
