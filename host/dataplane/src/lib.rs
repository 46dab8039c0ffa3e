//! The data path: workers, transports, the pipeline of a message, and the tenant state that they read (seats, selector, budgets, breakers).
//!
//! [`worker::spawn`] starts a worker; `pipeline` decides on one message. State that workers share ([`shared::Shared`]) is either immutable
//! and replaced as a whole, or a counter. This crate depends on neither SQL nor HTTP, nor on the code that changes what it reads.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub mod active;
pub mod client_load;
pub mod drain;
pub mod failed_addresses;
pub mod flow_pings;
pub mod guard_log;
pub mod handover;
pub mod handshakes;
pub mod inspection;
pub mod linger;
pub mod link;
pub mod next_hop_load;
pub mod notice_log;
pub mod notices;
pub mod orders;
pub mod own_load;
pub mod peering;
pub mod pings;
pub mod pipeline;
pub mod shared;
pub mod tenants;
pub mod throttle;
pub mod trace;
pub mod transport;
mod weight;
pub mod worker;
