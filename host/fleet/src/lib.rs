//! What the hosts of a fleet tell each other.
//!
//! - [`directory`]: the hosts that use one database, each in a row of the table `portcullis_host`.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub mod directory;
