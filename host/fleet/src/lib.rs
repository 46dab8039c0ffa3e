//! What the hosts of a fleet send each other.
//!
//! - [`directory`]: the hosts that use one database, each in a row of the table `portcullis_host`.
//! - [`exchange`]: what hosts count or know together, through Redis.
//!
//! Nothing here depends on policies or SIP, and nothing of it runs on a worker.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub mod directory;
pub mod exchange;
mod name;

pub use name::host_name;
