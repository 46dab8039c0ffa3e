//! SIP transactions and the response context of a stateful proxy (RFC 3261 §16, §17; RFC 6026), without sockets and clocks.
//!
//! Time is an argument of every call ([`Time`]), and nothing here is random. The four state machines of RFC 3261 §17 are plain values:
//! [`ClientInvite`], [`ClientNonInvite`], [`ServerInvite`] and [`ServerNonInvite`] know codes and times, but no messages.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod machine;
mod slab;
mod time;
mod timers;
mod wheel;

pub use machine::{
    ClientInvite, ClientNonInvite, ClientTimer, OnAck, OnCopy, OnResponse, Repeat, ServerInvite,
    ServerNonInvite, ServerTimer,
};
pub use slab::{Id, Slab};
pub use time::Time;
pub use timers::Timers;
pub use wheel::Wheel;
