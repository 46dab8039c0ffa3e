//! Hosts that share an address pass each other the messages of their transactions.
//!
//! With equal-cost routes, anycast or a load balancer for UDP, any host may receive the next message of a transaction that another one has. Each host
//! has an internal address for the others, and says several times a second that it lives. A message of another host's transaction travels there in an
//! envelope with the addresses that it came with, and is handled as if it had been received there.
//!
//! - `envelope` is the format of both kinds of packets. Each ends with a keyed hash, whose key is derived from the seal key of the fleet.
//! - `roster` decides which hosts live and which packets are good. It has no sockets and no clock.
//! - [`Table`] is what workers see of it: immutable, and replaced as a whole.
//! - [`Peers`] has the sockets. Its thread receives; workers send without it.
//!
//! No clock of another host matters. A host is alive if it returns a random number that it was sent with one of the last eight greetings, so an old packet proves
//! nothing. Each process has a random number, its session, and counts what it sends: an envelope names both sessions and its count, and is refused if
//! one of the sessions has ended or the count has been seen.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod counts;
mod envelope;
mod error;
mod keys;
mod peers;
mod roster;
mod socket;
mod table;
mod window;

#[cfg(any(test, feature = "invariants"))]
pub mod invariants;

pub use counts::{Counts, Refusal};
pub use envelope::Carried;
pub use error::PeersError;
pub use peers::{Facts, Options, Passing, Peers};
pub use socket::Socket;
pub use table::{Peer, Table};
